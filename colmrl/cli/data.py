"""colmrl data check"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from colmrl.cli.common import SETTINGS, Overrides, Strict, app, configured, friendly, show_table

if TYPE_CHECKING:
    from colmrl.checking import Findings
    from colmrl.checking.findings import RecordCounts
    from colmrl.checking.measuring import Spread

data_app = app("Look at data.")


@data_app.callback()
def look() -> None:
    """Look at data."""


@data_app.command(context_settings=SETTINGS)
@friendly
def check(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe.")],
    overrides: Overrides = None,
    data: Annotated[str | None, typer.Option(help="A folder, a file, a data set of the hub.")] = None,
    triples: Annotated[str | None, typer.Option(help="Triples with hard negatives.")] = None,
    root: Annotated[str | None, typer.Option(help="Where relative picture paths start.")] = None,
    out: Annotated[str | None, typer.Option(help="A folder for check.json and check.png; else OUTPUT/check.")] = None,
    strict: Strict = None,
) -> None:
    """Counts, lengths, pictures and what they cost, duplicates, leakage, and a contact sheet of examples."""
    flags = {"data.path": data, "data.triples": triples, "data.root": root, "data.strict": strict}
    settings = configured(config, overrides, flags)
    from colmrl.checking import check_data

    folder = out or f"{settings.output}/check"
    show_findings(check_data(settings, folder))
    typer.echo(folder)


def show_findings(found: Findings) -> None:
    """Tables and lines on standard output; what needs attention comes last."""
    for name, place in found.sources.items():
        typer.echo(f"{name}: {place}")
    show_table(list(_split_lines(found)))
    show_table(list(_record_lines(found)))
    if found.language_parameters is not None:
        show_table(list(_token_lines(found)))
    if any(counts.pictures for counts in found.records):
        show_table(list(_picture_lines(found)))
    for line in _remarks(found):
        typer.echo(line)
    for line in found.attention:
        typer.echo(f"attention: {line}")


def _split_lines(found: Findings) -> Iterator[list[str]]:
    yield ["split", "queries", "without answer", "judgements", "relevant", "documents judged", "negatives a positive"]
    for split in found.splits:
        negatives = _spread(split.negatives, tail=False) if split.negatives else "none"
        numbers = [split.queries, len(split.unanswered), split.judgements, split.relevant, split.judged]
        yield [f"{split.source} {split.split}", *(f"{n:,}" for n in numbers), negatives]


def _record_lines(found: Findings) -> Iterator[list[str]]:
    yield ["records", "number", "in no judgement", "copies", "pictures", "characters min / median / p95 / max"]
    for counts in found.records:
        numbers = [counts.records, counts.unjudged, counts.repeated, counts.pictures]
        yield [_name(counts), *(f"{n:,}" for n in numbers), _spread(counts.characters)]


def _token_lines(found: Findings) -> Iterator[list[str]]:
    yield ["tokens", "of text", "cut", "of pictures", "of the whole input", "FLOP (median)"]
    for counts in found.records:
        if counts.tokens and counts.flops:
            cut = f"{counts.cut:,} at {counts.limit:,}"
            spreads = [_spread(counts.tokens), cut, _spread(counts.visual), _spread(counts.inputs)]
            yield [_name(counts), *spreads, _flop(counts.flops.median)]


def _picture_lines(found: Findings) -> Iterator[list[str]]:
    yield ["pictures", "number", "sizes", "width", "height", "megapixels"]
    for counts in found.records:
        if counts.pictures:
            sides = [_spread(side, tail=False) for side in (counts.width, counts.height)]
            megapixels = _spread(counts.megapixels, 3, tail=False)
            yield [_name(counts), f"{counts.pictures:,}", f"{counts.sizes:,}", *sides, megapixels]


def _remarks(found: Findings) -> Iterator[str]:
    if found.language_parameters is not None:
        yield (
            f"FLOP of a forward pass ≈ 2 × {found.language_parameters:,} parameters of the language model (without its "
            "table of embeddings) × tokens of the input; attention and the vision tower are not counted"
        )
    opened = sum(counts.opened for counts in found.records)
    if opened:
        yield f"of all pictures the size was read, and {opened:,}, drawn with seed {found.seed}, were decoded"
    for shared in found.leakage:
        meaning = f" ({shared.meaning})" if shared.count else ""
        yield f"in train and test: {shared.count:,} of the test's {shared.of:,} {shared.what}{meaning}"


def _name(counts: RecordCounts) -> str:
    return f"{counts.source} {counts.kind}"


def _flop(number: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:,.3g} {unit}"
    return f"{number:,.0f}"


def _spread(spread: Spread | None, digits: int = 0, tail: bool = True) -> str:
    """min / median / p95 / max, or without p95."""
    if spread is None:
        return "–"
    values = [spread.low, spread.median, *([spread.p95] if tail else []), spread.high]
    return " / ".join(f"{value:,.{digits}f}" for value in values)
