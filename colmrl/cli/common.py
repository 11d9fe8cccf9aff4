"""What every command shares: flags with dashes or underscores, one line for wrong input or Ctrl-C, the table shown."""

import contextlib
import functools
import json
import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from typer.core import TyperGroup

from colmrl.config import Config
from colmrl.configure import load_config
from colmrl.errors import InputError
from colmrl.files import DISK_REFUSES

P = ParamSpec("P")
R = TypeVar("R")

SETTINGS = {"token_normalize_func": lambda name: name.replace("_", "-"), "help_option_names": ["-h", "--help"]}

_NUMBER = re.compile(r"([-+]?[\d,]*\.?\d+ ?%?)?")  # or an empty cell

ConfigFile = Annotated[str | None, typer.Option("--config", "-c", help="A YAML file, or the name of a recipe.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]...", help="Any other setting, e.g. train.epochs=2.")
]
Strict = Annotated[bool | None, typer.Option(help="Stop at a bad line of data, or skip, count and report it.")]
Gpu = Annotated[bool | None, typer.Option(help="Search on the GPU where there is one.")]
Seed = Annotated[int | None, typer.Option(help="The seed of everything that is drawn.")]


class FirstIsMeant(TyperGroup):
    """A group whose first command is meant where none is named: `eval.py --store …` beside `eval.py rerank …`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = next(iter(self.commands))
        return super().parse_args(ctx, args if args and args[0] in self.commands else [first, *args])


def app(help_text: str, group: type[TyperGroup] | None = None) -> typer.Typer:
    return typer.Typer(
        cls=group,
        help=help_text,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        no_args_is_help=True,
    )


GOES_ON = {  # after Ctrl-C; of other commands nothing is kept
    "train": "the same command goes on from the newest resume point, where there is one (train.save_steps)",
    **dict.fromkeys(
        ("encode", "loop", "frontier", "rerank", "mteb", "pdf", "qilin", "amazon", "convert"),
        "the same command goes on where it stopped",
    ),
}
_INTERRUPTED = 130  # as shells say of a program that SIGINT ended


def friendly(command: Callable[P, R]) -> Callable[P, R]:
    """Wrong input is one line on standard error and exit code 2, Ctrl-C one and 130; anything else keeps its
    traceback.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        _quiet()
        interrupts: list[int] = []
        try:
            with _noted(interrupts):
                return _said(command, *args, **kwargs)
        except BaseException:
            if not interrupts:
                raise
            if os.environ.get("RANK", "0") == "0":
                name = command.__name__
                typer.echo(f"interrupted: {GOES_ON.get(name, 'give the same command again')}", err=True)
            raise typer.Exit(_INTERRUPTED) from None

    return run


@contextlib.contextmanager
def _noted(interrupts: list[int]) -> Iterator[None]:
    """What SIGINT breaks off ends in many kinds of errors, a worker's for one: that it came is what tells."""
    if threading.current_thread() is not threading.main_thread():  # which alone has handlers
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        interrupts.append(number)
        threading.excepthook = sys.excepthook = lambda *_: None  # those that served workers lose them
        signal.default_int_handler(number, frame)

    def ignored(what: Any) -> None:
        """Where Python passes errors over (in what runs around a fork, say), it is raised again a moment later."""
        if what.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
        else:
            hook(what)

    hook, sys.unraisablehook = sys.unraisablehook, ignored
    hooks = threading.excepthook, sys.excepthook
    before = [(number, signal.signal(number, interrupt)) for number in (signal.SIGINT, signal.SIGALRM)]
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        threading.excepthook, sys.excepthook = hooks
        for number, handler in before:
            signal.signal(number, handler)


def _said(command: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What is wrong with the input, or with a place on disk, as a line."""
    try:
        return command(*args, **kwargs)
    except InputError as error:
        message = str(error).rpartition("InputError: ")[2]  # a data worker's error comes with its traceback
        typer.echo(f"error: {message.strip()}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        if error.filename is None and error.errno not in DISK_REFUSES:
            raise
        place = error.filename or "the disk"
        typer.echo(f"error: {place}: {error.strerror}: choose another place, or mend this one", err=True)
        raise typer.Exit(2) from None


def configured(config: str | None, overrides: Sequence[str] | None, flags: dict[str, Any]) -> Config:
    """The configuration; a flag that was given wins over the file, `section.key=value` over both."""
    given = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in flags.items() if value is not None]
    return load_config(config, [*given, *(overrides or [])])


def say_once(line: object) -> None:
    """On standard output; of several processes (torchrun) the first speaks."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(line)


def show_table(lines: Sequence[Sequence[str]]) -> None:
    """A header and rows, on standard output: numbers to the right and never broken, long texts and paths folded."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*lines[0])
    for column, cells in zip(table.columns, zip(*lines[1:], strict=True), strict=False):
        column.overflow = "fold"
        if all(_NUMBER.fullmatch(cell) for cell in cells):
            column.justify, column.no_wrap = "right", True
    for line in lines[1:]:
        table.add_row(*line)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _quiet() -> None:
    """Our own log, and of the libraries' only what is wrong."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("colmrl").setLevel(logging.INFO)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says at every start what it could use on CPUs
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", category=FutureWarning, message="`broadcast_buffers` is deprecated")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
