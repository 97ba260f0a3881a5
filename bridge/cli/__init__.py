"""The command line: parse, call, print. `main` is the entry point."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import Any

import click

from bridge.cli.common import BridgeCommand, shared_options, state_of
from bridge.errors import BridgeError

_COMMANDS = {
    "demo": "bridge.cli.demo",
    "doctor": "bridge.cli.doctor",
    "node": "bridge.cli.node",
    "fit": "bridge.cli.indexing",
    "register": "bridge.cli.indexing",
    "ingest": "bridge.cli.indexing",
    "rewrite": "bridge.cli.asking",
    "search": "bridge.cli.asking",
    "evaluate": "bridge.cli.measuring",
}
"""Each command and the module that holds it; a module is imported when its command is asked for."""


class _Commands(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        del context
        return list(_COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        del context
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(_COMMANDS[name]), "group" if name == "node" else name)
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(context, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], _COMMANDS, 1)
            raise click.UsageError(f"{error.message} Did you mean {close[0]!r}?" if close else error.message) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="neural-sparse-bridge", prog_name="bridge")
def cli() -> None:
    """Learned-sparse search on the OpenSearch or Elasticsearch you already run.

    Without a URL every command uses an embedded OpenSearch node on this machine, and says so.

    \b
    bridge demo                                  see it work
    bridge ingest articles articles.jsonl        index documents; a model is fitted on them
    bridge search articles "a question"          ask
    bridge rewrite "a question" --index articles the query alone, for your own client

    Exit codes: 0 done; 1 failed; 2 usage; 3 done, but documents are in the dead-letter file; 4 engine not
    reached or not allowed; 5 model and index do not match; 130 interrupted, resumable.
    """


cli.params += shared_options()


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit the process with its code: one line on stderr for a failure, no traceback."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run a command; its exit code."""
    _quiet_clients()
    context: click.Context | None = None
    try:
        with cli.make_context("bridge", list(sys.argv[1:] if arguments is None else arguments)) as context:
            code: Any = cli.invoke(context)
            return code if isinstance(code, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except (KeyboardInterrupt, click.exceptions.Abort):
        click.echo("bridge: interrupted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BridgeError as error:
        return _failed(error, error.exit_code, context)
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); the interpreter must not complain on exit.
        sys.stdout = None
        return 141
    except OSError as error:
        return _failed(error, 1, context)


def _failed(error: Exception, code: int, context: click.Context | None) -> int:
    if context is not None and state_of(context).verbose:
        import traceback

        traceback.print_exception(error)
    click.echo(f"bridge: error: {' '.join(str(error).split())}", err=True)
    return code


def _quiet_clients() -> None:
    """The clients report every retry and notice of a server; the bridge says what matters itself."""
    import logging

    for name in ("opensearch", "elastic_transport", "elasticsearch", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"elasticsearch(\.|$)|elastic_transport(\.|$)|opensearchpy(\.|$)")


__all__ = ["BridgeCommand", "cli", "main", "run"]
