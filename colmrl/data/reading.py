"""A data set in any format → a collection. What it is, is seen from its files and columns, or said by data.format."""

import functools
import logging
from dataclasses import replace
from pathlib import Path

from colmrl.config import DataConfig, ShowConfig
from colmrl.data.beir import read_beir
from colmrl.data.corpus_tables import PARTS, is_corpus_tables, read_corpus_tables
from colmrl.data.mixture import Mixture, join_answers
from colmrl.data.qilin import read_qilin
from colmrl.data.records import Collection, Examples, Splits, relevant
from colmrl.data.sequences import read_sequences
from colmrl.data.table_collection import read_tables
from colmrl.data.triples import has_ids, read_triples
from colmrl.data.video_pairs import read_video_pairs, write_video_sample
from colmrl.errors import InputError

log = logging.getLogger(__name__)
_AS_IT_IS = ShowConfig()


def read_collection(path: str, data: DataConfig, show: ShowConfig = _AS_IT_IS) -> Collection:
    """The data set at `path` (a folder, a file, or a name of the hub), read as `data` and shown as `show` says."""
    folder = Path(path)
    if (
        path
        and data.format == "video-pairs"
        and not any((folder / f).is_file() for f in ("train_data.jsonl", "video_meta.jsonl"))
    ):
        log.warning(
            "%s: has neither train_data.jsonl nor video_meta.jsonl: GENERATED sample videos are put there", path
        )
        write_video_sample(folder)
    check_place(path)
    kind = data.format or format_of(folder)
    if kind is None and (inside := sorted(folder.glob("*/corpus.jsonl"))):
        raise InputError(f"{path}: holds data sets, is none itself: give {inside[0].parent}")
    match kind:
        case "beir":
            collection = read_beir(folder if folder.is_dir() else _from_hub(path), data.strict)
        case "video-pairs":
            collection = read_video_pairs(folder, show.video_template, show.frames, data.strict)
        case "mteb":
            collection = read_corpus_tables(path, data.strict)
        case "qilin":
            collection = read_qilin(path, data.strict, "search", data.root)
        case "qilin-recommendation":
            collection = read_qilin(path, data.strict, "recommendation", data.root)
        case "sequences":
            collection = read_sequences(folder, data.strict, show.item_form, show.history)
        case convention:
            collection = read_tables(path, convention, data.root, data.strict)
    _say(collection.source, collection.notes)
    return collection


def check_place(path: str, setting: str = "data.path") -> None:
    """Raise an InputError where there can be no data set, or one that is not whole; `setting` is what names it."""
    if not path:
        raise InputError(f"{setting}: not given: name a folder, a file, or a data set of the hub (docs/data.md)")
    folder = Path(path)
    if not folder.exists() and not may_be_of_the_hub(path):
        raise InputError(f"{path}: no such data set: check {setting} (or write one: colmrl prepare sample)")
    _check_whole(folder)


@functools.lru_cache(maxsize=64)  # once a process: every stage reads the data again
def _say(source: str, notes: tuple[str, ...]) -> None:
    for note in notes:
        log.info("%s: %s", source, note)


def read_training(data: DataConfig, show: ShowConfig = _AS_IT_IS) -> tuple[Mixture, dict[str, set[str]]]:
    """Training examples, and for each query the ids of all documents known to answer it.

    From every one of `data.sources`, where there are any; else from `data.triples` where it is given (with ids: of
    `data.path`'s records), else from `data.path`.
    """
    if not data.sources:
        examples, positives = _read_source(data, show)
        return Mixture([examples]), positives
    read = []
    for number, source in enumerate(data.sources):
        one = vars(source).copy()
        del one["weight"]
        try:
            read.append(_read_source(replace(data, sources=(), train_split=one.pop("split"), **one), show))
        except InputError as error:
            raise InputError(f"data.sources[{number}]: {error}") from None
    parts, positives = zip(*read, strict=True)
    weights = [source.weight for source in data.sources]
    if any(weight is None for weight in weights) and any(weight is not None for weight in weights):
        raise InputError("data.sources: some have a weight and some have none: give every source one, or none of them")
    return Mixture(parts, weights), join_answers(positives)


def _read_source(data: DataConfig, show: ShowConfig) -> tuple[Examples, dict[str, set[str]]]:
    collection, split = training_collection(data, show)
    positives = known_answers(collection, split)
    examples = collection.train_on(split)
    if not examples:
        remedy = "write one triple a line" if data.triples else "give qrels with a score above 0"
        raise InputError(f"{data.triples or data.path}: no training examples: {remedy}")
    return examples, positives


def training_collection(data: DataConfig, show: ShowConfig = _AS_IT_IS) -> tuple[Collection, str]:
    """What is trained on, and the split of it: triples without ids alone; else `data.path`, with the examples of the
    mined triples where they are given."""
    split = data.train_split
    if data.triples and not has_ids(data.triples):
        collection = read_tables(data.triples, "triples", data.root or data.path or None, data.strict)
        return collection, next(iter(collection.qrels))
    collection = read_collection(data.path, data, show)
    if not data.triples:
        return collection, split
    queries, documents, own = collection.queries, collection.documents, collection.examples
    triples = read_triples(data.triples, queries.position, documents.position, data.strict)
    mined = Examples(queries, documents, triples)
    examples = Splits({**dict.fromkeys(own), split: None}, lambda name: mined if name == split else own[name])
    return replace(collection, examples=examples), split


def known_answers(collection: Collection, split: str) -> dict[str, set[str]]:
    """Query id → the documents that must not be its negatives: its relevant ones, those of every query that asks the
    same (two people may), and the document that it is itself."""
    answers: dict[str, set[str]] = {}
    asked: dict[int, set[str]] = {}  # by content: queries that show the same share one set
    for query_id, judged in collection.judged(split).items():
        query = collection.queries.named(query_id)
        known = asked.setdefault(hash((query.text, query.images)), set())
        known |= relevant(judged)
        answers[query_id] = known
    for query_id in answers.keys() & collection.itself.keys():
        answers[query_id] = answers[query_id] | {collection.itself[query_id]}
    return answers


def _check_whole(folder: Path) -> None:
    """A folder that work done ahead has not finished is not to be read."""
    manifest = folder / "manifest.json"
    if manifest.is_file() and '"finished": false' in manifest.read_text(encoding="utf-8", errors="replace"):
        raise InputError(f"{folder}: is not whole: give the command that began it again ({manifest.name} says which)")


def format_of(folder: Path) -> str | None:
    """What the files' names say; None: a table."""
    if folder.is_dir():
        for format_, files in (
            ("beir", ("corpus.jsonl", "queries.jsonl")),
            ("video-pairs", ("train_data.jsonl",)),
            ("sequences", ("user_sequence.txt",)),
        ):
            if all((folder / file).is_file() for file in files):
                return format_
        if any(folder.glob("notes*")) and any(folder.glob("search_t*")):
            return "qilin"
        if any(folder.glob("notes*")) and any(folder.glob("recommendation_t*")):
            return "qilin-recommendation"
        if is_corpus_tables(folder):
            return "mteb"
        if (folder / "corpus.jsonl").is_file() or (folder / "qrels").is_dir():
            return "beir"  # not whole: the error says which file is missing
    elif not folder.exists():
        name = folder.as_posix()
        return "beir" if _keeps_beir_files(name) else "mteb" if _keeps_corpus_tables(name) else None
    return None


def may_be_of_the_hub(path: str) -> bool:
    """Whether it is owner/name, and no place beside a folder that is here."""
    parts = Path(path).parts
    return len(parts) == 2 and not Path(path).is_absolute() and ".." not in parts and not Path(parts[0]).exists()


@functools.lru_cache(maxsize=16)
def _keeps_beir_files(name: str) -> bool:
    """Whether a data set of the hub keeps the BEIR layout in files, as mteb/scifact does."""
    from huggingface_hub import file_exists

    try:
        return file_exists(name, "corpus.jsonl", repo_type="dataset") and file_exists(
            name, "queries.jsonl", repo_type="dataset"
        )
    except (OSError, ValueError) as error:  # what the hub's client raises, whatever went wrong
        raise _no_hub(name, error) from None


@functools.lru_cache(maxsize=16)
def _keeps_corpus_tables(name: str) -> bool:
    """Whether a data set of the hub has configurations of the names that MTEB and ViDoRe give them."""
    from datasets import get_dataset_config_names

    if ":" in name:
        return False
    try:
        return set(PARTS) <= set(get_dataset_config_names(name))
    except Exception as error:  # of no common class
        raise _no_hub(name, error) from None


@functools.lru_cache(maxsize=16)
def _from_hub(name: str) -> Path:
    """The files of the BEIR layout, downloaded once and cached."""
    from huggingface_hub import snapshot_download

    wanted = ["corpus.jsonl", "queries.jsonl", "qrels/*.tsv", "images/*"]
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=wanted))
    except (OSError, ValueError) as error:
        raise _no_hub(name, error) from None


def _no_hub(name: str, error: Exception) -> InputError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(f"data.path: {name!r}: no such folder, and not to be had from the hub ({reason})")
