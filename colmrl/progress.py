"""Progress bars on standard error; silent where that is no terminal."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

T = TypeVar("T")


def bar(label: str) -> Progress:
    """A bar that shows how many are done, how long it took and how long it will."""
    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def track(items: Iterable[T], label: str, total: int) -> Iterator[T]:
    """The same items, with a bar."""
    with bar(label) as progress:
        yield from progress.track(items, total=total)
