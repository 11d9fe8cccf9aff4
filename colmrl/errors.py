"""The one error that users are meant to see: wrong input, said in a line, with what to do about it."""

from pathlib import Path


class InputError(ValueError):
    """What the user gave is wrong. The command line prints the message alone and exits with code 2."""


def located(path: str | Path, line: int | None, field: str, problem: str, remedy: str) -> InputError:
    """`file:line: field: what is wrong: what to do`, as an error to raise."""
    place = f"{path}:{line}" if line is not None else str(path)
    return InputError(f"{place}: {field}: {problem}: {remedy}")
