"""The whole check, from a configuration to its report."""

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from colmrl import provenance
from colmrl.checking.findings import (
    Findings,
    RecordCounts,
    Shared,
    Source,
    SplitCounts,
    count_records,
    count_split,
    false_negatives,
    leakage_between,
)
from colmrl.checking.measuring import NAMED, Faults, TokenCounter, language_parameters, measure
from colmrl.checking.sheet import contact_sheet, draw_rows
from colmrl.config import Config
from colmrl.data.reading import read_collection, training_collection
from colmrl.data.records import Collection
from colmrl.data.triples import has_ids
from colmrl.errors import InputError
from colmrl.files import write_text, write_whole
from colmrl.inputs import write_inputs
from colmrl.models.processors import load_processor


def check_data(config: Config, out: str | Path) -> Findings:
    """All that can be seen without the model's weights; writes `out/check.json` and `check.png`.

    Raises InputError for data that cannot be read, as training does.
    """
    with _warnings() as attention:
        config = write_inputs(config)
        named, train, test = _read(config)
        counter, parameters = _counter(config, attention)
        sources: dict[str, Source] = {}
        for name, collection in named.items():
            queries = measure(collection.queries, config.model, counter, config.seed, "queries")
            documents = measure(collection.documents, config.model, counter, config.seed, "documents")
            sources[name] = Source(name, collection, queries, documents)
        splits = [count_split(source, split) for source in sources.values() for split in source.collection.qrels]
        records = [
            count_records(s, kind, config.model, parameters)
            for s in sources.values()
            for kind in ("queries", "documents")
        ]
    for source in sources.values():
        attention += _faults(source)
    there = {use: (sources[use[0]], use[1]) for use in (train, test) if use[1] in named[use[0]].qrels}
    for use, purpose in ((train, "train"), (test, "judge")):
        if use not in there:
            others = ", ".join(named[use[0]].qrels)
            attention.append(f"{use[0]}: has no split {use[1]!r} to {purpose} on, only {others}")
    leakage = leakage_between(*there[train], *there[test]) if train in there and test in there else []
    attention += _remarks(splits, records, leakage)
    if train in there:
        attention += false_negatives(*there[train])
    attention += _write_sheet(Path(out) / "check.png", *there[train if train in there else test], config)
    found = Findings(
        command=provenance.command(),
        commit=provenance.commit(),
        seed=config.seed,
        sources={name: collection.source for name, collection in named.items()},
        splits=splits,
        records=records,
        language_parameters=parameters,
        leakage=leakage,
        attention=attention,
    )
    write_text(Path(out) / "check.json", json.dumps(dataclasses.asdict(found), indent=1, ensure_ascii=False))
    return found


_Use = tuple[str, str]  # the name of a data set, and the split of it


def _read(config: Config) -> tuple[dict[str, Collection], _Use, _Use]:
    """Data sets by the setting that names them; what is trained on, and what is judged on."""
    data, named = config.data, dict[str, Collection]()
    trained, split = training_collection(data, config.show)
    train = ("data.triples" if data.triples and not has_ids(data.triples) else "data.path", split)
    test = ("data.path", data.eval_split)
    if train[0] == "data.triples" and data.path:
        named["data.path"] = read_collection(data.path, data, config.show)
    named[train[0]] = trained
    if data.eval_path and data.eval_path != data.path:
        named["data.eval_path"] = read_collection(data.eval_path, data, config.show)
        test = ("data.eval_path", data.eval_split)
    elif "data.path" not in named:
        test = ("data.triples", data.eval_split)
    if train[1] not in named[train[0]].qrels and test[1] not in named[test[0]].qrels:
        named[train[0]].judged(train[1])  # neither to train nor to judge on: says what there is
    return named, train, test


def _counter(config: Config, attention: list[str]) -> tuple[TokenCounter | None, int | None]:
    """The model's tokens, and the parameters of its language model; neither where the backbone cannot be had."""
    model = config.model
    try:
        processor = load_processor(model.backbone, model.max_pixels, model.padding_side, model.resize)
        return TokenCounter(processor, model), language_parameters(model.backbone)
    except (InputError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        attention.append(f"characters are counted and no tokens, for want of the backbone: {reason}")
        return None, None


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What the readers warn of: lines that were skipped and how many."""
    said = list[str]()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener, log = Listener(logging.WARNING), logging.getLogger("colmrl.data")
    log.addHandler(listener)
    try:
        yield said
    finally:
        log.removeHandler(listener)


def _faults(source: Source) -> list[str]:
    """What is wrong with single records."""
    said = {
        "damaged": "pictures that cannot be opened (all sizes read, {opened} pictures decoded)",
        "refused": "with a picture that the processor refuses",
        "empty": "of which nothing is left under model.document_fields",
        "unseen": "with a picture, and the backbone reads text only: model.document_fields=[text]",
    }
    lines = list[str]()
    for kind, found in (("queries", source.queries), ("documents", source.documents)):
        for name, meaning in said.items():
            faults: Faults = getattr(found, name)
            if faults.count:
                meaning = meaning.format(opened=len(found.drawn))
                lines.append(f"{source.name}: {kind}: {faults.count} {meaning}: {'; '.join(faults.examples)}")
    return lines


def _remarks(
    splits: Sequence[SplitCounts], records: Sequence[RecordCounts], leakage: Sequence[Shared]
) -> Iterator[str]:
    """What in the counts is worth a look."""
    for split in splits:
        if split.unanswered:
            some = ", ".join(split.unanswered[:NAMED])
            yield f"{split.source}, {split.split}: {len(split.unanswered)} queries without a relevant document: {some}"
    for found in records:
        if found.groups:
            some = "; ".join(" = ".join(group) for group in found.equal)
            copies = f"{found.repeated} {found.kind} are the same as another, in {found.groups} groups"
            yield f"{found.source}: {copies}: {some}"
    for shared in leakage:
        if shared.leak and shared.count:
            share = f"{shared.count} of the test split's {shared.of} {shared.what}"
            yield f"leakage: {share}, are in the training split: {shared.meaning}: {'; '.join(shared.examples)}"


def _write_sheet(path: Path, source: Source, split: str, config: Config) -> Iterator[str]:
    """The contact sheet; yields what is to be said of it."""
    examples = source.collection.train_on(split)
    rows = draw_rows(examples, source.answers(split), config.seed)
    if not rows:
        return
    title = f"{source.collection.source}, split {split}: {len(rows)} queries drawn with seed {config.seed}"
    sheet, missing = contact_sheet(rows, config.model, title)
    write_whole(path, lambda partial: sheet.save(partial, format="PNG"))
    if missing:
        yield f"{path}: no font here has {missing}: they are counted in the sheet: install e.g. fonts-noto-cjk"
