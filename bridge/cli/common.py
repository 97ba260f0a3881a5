"""What every command shares: the global options, the connection, printing."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from bridge.engines import Engine
    from bridge.records import Progress

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(slots=True)
class State:
    """The global options of this call; they may stand before or after the command's name."""

    url: str | None = None
    product: str | None = None
    config: Path | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    _said: set[str] = field(default_factory=set)

    def say(self, line: str) -> None:
        """A line for the user, on stderr."""
        if not self.quiet:
            click.echo(line, err=True)

    def connect(self) -> Engine:
        """The engine that the options, the environment or the settings name, or the embedded node."""
        from bridge.resolve import connect
        from bridge.settings import load_settings

        settings = load_settings(url=self.url, product=self.product, file=self.config)
        return connect(settings, self.say)

    def out(self, document: Any) -> None:
        """One JSON document on stdout."""
        import msgspec

        encoded = msgspec.json.encode(document)
        if sys.stdout.isatty() and not self.json:
            encoded = msgspec.json.format(encoded, indent=2)
        # Bytes: JSON is UTF-8, whatever the locale says.
        click.echo(encoded)

    def console(self, stream: IO[str] | None = None) -> Console:
        """A console on stdout; its width is the terminal's, or 120 where there is none."""
        from rich.console import Console

        target = stream or sys.stdout
        return Console(file=target, width=None if target.isatty() else 120, highlight=False, soft_wrap=False)

    @contextmanager
    def progress(self) -> Iterator[Callable[[Progress], None]]:
        """A live view on a terminal, a line every few seconds elsewhere; both on stderr."""
        from bridge.cli.progress import lines, live

        if self.quiet:
            yield lambda progress: None
        elif sys.stderr.isatty():
            with live(self.console(sys.stderr)) as report:
                yield report
        else:
            yield lines(self.say)


def error_line(message: str) -> None:
    """What went wrong, on stderr and in one line, whatever the message's own line breaks."""
    click.echo(f"bridge: error: {' '.join(message.split())}", err=True)


def state_of(context: click.Context) -> State:
    """The state of this call."""
    return context.ensure_object(State)


pass_state = click.make_pass_decorator(State, ensure=True)


def _set(name: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        del parameter
        if value:
            setattr(state_of(context), name, value)
        return value

    return callback


class SectionOption(click.Option):
    """An option that `--help` shows under a heading of its own."""

    def __init__(self, *args: Any, section: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class _Shared(SectionOption):
    """A global option; what it says goes to the state, not to the command."""

    def __init__(self, *names: str, to: str, **kwargs: Any) -> None:
        super().__init__(names, section="Global options", callback=_set(to), expose_value=False, **kwargs)


def _shared_options() -> list[_Shared]:
    """The global options, fresh objects each time."""
    return [
        _Shared("--url", to="url", metavar="URL",
                help="The engine; else OPENSEARCH_URL, ELASTICSEARCH_URL, the settings file, the embedded node."),
        _Shared("--engine", to="product", type=click.Choice(["opensearch", "elasticsearch"]),
                help="The product that answers at the URL, where it cannot be detected."),
        _Shared("--config", to="config", type=click.Path(path_type=Path), metavar="FILE",
                help="The settings file (TOML); else BRIDGE_CONFIG, ./bridge.toml, the user's config.toml."),
        _Shared("--json", to="json", is_flag=True, help="Print JSON on stdout and nothing else there."),
        _Shared("-q", "--quiet", to="quiet", is_flag=True, help="No progress and no notices on stderr."),
        _Shared("-v", "--verbose", to="verbose", is_flag=True, help="Show tracebacks of errors."),
    ]  # fmt: skip


_MODEL_OPTIONS = ("device", "precision", "revision", "allow_pickle", "trust_remote_code", "activation")


def model_options(command: Any) -> Any:
    """The options of commands that load a model; `run_options` takes them out again."""
    for option in (
        click.option("--activation", type=click.Choice(["log1p_relu", "log1p_log1p_relu", "relu"]),
                     help="Another activation than the model's files or card say."),
        click.option("--trust-remote-code", is_flag=True,
                     help="Run code that the model's folder brings along for its architecture."),
        click.option("--allow-pickle", is_flag=True,
                     help="Read pytorch_model.bin, restricted to tensors, where there are no safetensors."),
        click.option("--revision", metavar="REVISION", help="A branch, tag or commit of a Hugging Face model."),
        click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]),
                     help="Default: fp32 on a CPU, bf16 on a GPU."),
        click.option("--device", default="auto", show_default=True, metavar="DEVICE",
                     help="Where a neural model runs: cpu, cuda, cuda:N, mps; auto is a GPU where there is one."),
    ):  # fmt: skip
        command = option(command)
    return command


def run_options(options: dict[str, Any]) -> dict[str, Any]:
    """The values of `model_options`, as `bridge.load_encoder` takes them."""
    return {name: options[name] for name in _MODEL_OPTIONS}


def all_of(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Several options as one decorator, in the order in which `--help` shows them."""

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


passage_option = partial(click.option, cls=SectionOption, section="Long texts and pruning")
"""An option of that section."""


def cut_options(passages: str | None = None, overlap: int | None = None) -> Callable[[Any], Any]:
    """How texts are cut, with these defaults; None where an index may remember it."""
    return all_of(
        passage_option(
            "--passages", type=click.Choice(["whole", "merge", "nested"]), default=passages,
            show_default=passages is not None,
            help="whole: what the model reads of a text; merge: the maximum over its passages; nested: each passage's "
            "own.",
        ),
        passage_option(
            "--passage-tokens", type=click.IntRange(1), metavar="N",
            help="A passage's longest, in the model's tokens; by default what the model reads.",
        ),
        passage_option(
            "--overlap", type=click.IntRange(0), default=overlap, metavar="N",
            help="Tokens of a passage that come again in the next.",
        ),
    )  # fmt: skip


def dead_letter_option(name: str) -> Callable[[Any], Any]:
    """Where dead letters go; by default into a file of the name that the argument `name` has."""
    return click.option(
        "--dead-letter",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"Where documents that cannot go in are kept, with the reason. Default: {name}.dead-letter.jsonl here.",
    )


error_budget_option = click.option(
    "--error-budget",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    metavar="SHARE",
    help="Stop when more than this share of the documents is dead, after the first 1,000; 1 never stops.",
)


prune_option = passage_option(
    "--prune",
    metavar="METHOD=VALUE,...",
    help="Drop the lightest tokens of each vector: top-k, max-ratio, alpha-mass or threshold.",
)


def pruning_removed(terms: float | None, mass: float | None) -> str | None:
    """What pruning removed, in words: the mean number of terms a document, and the share of all weight."""
    if terms is None or mass is None:
        return None
    return f"pruning removed {terms:.1f} terms a document, {100 * mass:.1f} % of the mass"


class BridgeCommand(click.Command):
    """A command that takes the global options too, so that they may stand at the end of a line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = {name for parameter in self.params for name in parameter.opts}
        self.params += [option for option in _shared_options() if not own & set(option.opts)]

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in sorted(self.get_params(context), key=lambda one: isinstance(one, _Shared)):
            # Arguments stand in the usage line, and the text says what they are.
            record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
            if record:
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class BridgeGroup(BridgeCommand, click.Group):
    """A group of commands that takes the global options, and knows what was meant by a slip of the keys."""

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(context, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], self.list_commands(context), 1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"{error.message}{meant}", context) from None

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(context, formatter)
        self.format_commands(context, formatter)
