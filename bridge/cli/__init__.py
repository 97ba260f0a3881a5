"""The command line: parse, call, print. `main` is the entry point."""

from __future__ import annotations

import errno
import io
import signal
import sys
import warnings
from importlib import import_module
from typing import Any

import click

from bridge.cli.common import BridgeGroup, State, error_line
from bridge.errors import BridgeError

_COMMANDS = {
    "demo": "bridge.cli.demo",
    "doctor": "bridge.cli.doctor",
    "node": "bridge.cli.node",
    "models": "bridge.cli.models",
    "fit": "bridge.cli.indexing",
    "register": "bridge.cli.indexing",
    "encode": "bridge.cli.encoding",
    "ingest": "bridge.cli.indexing",
    "dead-letter": "bridge.cli.letters",
    "migrate": "bridge.cli.migrating",
    "rewrite": "bridge.cli.asking",
    "search": "bridge.cli.asking",
    "evaluate": "bridge.cli.measuring",
    "export": "bridge.cli.exporting",
    "serve": "bridge.cli.serving",
    "proxy": "bridge.cli.serving",
    "keys": "bridge.cli.serving",
    "attach": "bridge.cli.attaching",
}
"""Each command and the module that holds it; a module is imported when its command is asked for."""

_GROUPS = ("node", "models", "dead-letter", "keys")


class _Commands(BridgeGroup):
    def list_commands(self, context: click.Context) -> list[str]:
        del context
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        del context
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(_COMMANDS[name]), "group" if name in _GROUPS else name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="neural-sparse-bridge", prog_name="bridge")
def cli() -> None:
    """Learned-sparse search on the OpenSearch or Elasticsearch you already run.

    Without a URL every command uses an embedded OpenSearch node on this machine, and says so.

    \b
    bridge demo                                  see it work
    bridge ingest articles articles.jsonl        index documents; a model is fitted on them
    bridge search articles "a question"          ask
    bridge rewrite "a question" --index articles the query alone, for your own client

    Exit codes: 0 done; 1 failed; 2 usage; 3 done, but some documents are dead letters; 4 engine not
    reached or not allowed; 5 model and index do not match; 130 interrupted, resumable.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit the process with its code: one line on stderr for a failure, no traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character must not end the command that prints it.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for name in ("SIGTERM", "SIGHUP"):
        # As Ctrl-C: what a run has changed is put back, and its place is kept. What nohup ignores stays ignored.
        number = getattr(signal, name, None)
        if number and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run a command; its exit code."""
    _quiet_clients()
    # Made here, so that options after the command's name and the error handling below share it.
    state = State()
    try:
        with cli.make_context("bridge", list(sys.argv[1:] if arguments is None else arguments), obj=state) as context:
            code: Any = cli.invoke(context)
            return code if isinstance(code, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("bridge: interrupted", err=True)
        return 130
    except click.ClickException as error:
        return _misused(error)
    except BridgeError as error:
        return _failed(str(error), error.exit_code, state)
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); the interpreter must not complain on exit.
        sys.stdout = None
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _failed(f"{where}{error.strerror or error}{_ROOM if error.errno in _FULL else ''}", 1, state)
    except Exception as error:
        return _failed(f"unexpected {type(error).__name__}: {error}; this is a bug: -v shows where", 1, state)


_FULL = (errno.ENOSPC, errno.EDQUOT)
_ROOM = "; make room and run it again"


def _failed(message: str, code: int, state: State) -> int:
    if state.verbose:
        import traceback

        traceback.print_exc()
    error_line(message)
    return code


def _misused(error: click.ClickException) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        # Its message is the help of a group that was called without a command.
        error.show()
        return error.exit_code
    context = getattr(error, "ctx", None)
    see = f"; see: {context.command_path} --help" if context else ""
    error_line(f"{error.format_message().removesuffix('.')}{see}")
    return error.exit_code


def _quiet_clients() -> None:
    """The clients report every retry and notice of a server; the bridge says what matters itself."""
    import logging

    for name in ("opensearch", "elastic_transport", "elasticsearch", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"elasticsearch(\.|$)|elastic_transport(\.|$)|opensearchpy(\.|$)")


__all__ = ["cli", "main", "run"]
