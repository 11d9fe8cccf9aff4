import json
import logging
import random
import shutil

import numpy
import pandas
import pyarrow.parquet
import pytest
from PIL import Image

from colmrl.data.qilin import read_qilin, read_qilin_qrels
from colmrl.data.qilin_sample import write_qilin_sample
from colmrl.data.tables import open_tables
from colmrl.errors import InputError

SEARCH, REQUEST = "search_result_details_with_idx", "rec_result_details_with_idx"
nan = float("nan")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr("datasets.config.HF_UPDATE_DOWNLOAD_COUNTS", False)  # no network


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    return write_qilin_sample(tmp_path_factory.mktemp("qilin") / "q", searches=40, notes=60, test_searches=10)


def table(folder, name):
    return pyarrow.parquet.read_table(folder / f"{name}.parquet").to_pylist()


def result(note, position, click=0, **more):
    return {"note_idx": note, "position": position, "click": click, "page_time": nan, **more}


def search(number, *results, query="a query", **more):
    return {"query": query, "search_idx": number, SEARCH: list(results), **more}


NOTES = [{"note_idx": n, "note_title": f"title {n}", "note_content": ""} for n in range(4)]


def written(folder, notes=NOTES, **tables):
    """A folder of JSON lines."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, rows in {"notes": notes, **tables}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    ("task", "column", "key"), [("search", SEARCH, "search_idx"), ("recommendation", REQUEST, "request_idx")]
)
def test_generated_rows_are_read_as_pyarrow_reads_them(generated, task, column, key):
    collection = read_qilin(generated, task=task)
    notes = table(generated, "notes")
    assert [d.id for d in collection.documents] == [str(note["note_idx"]) for note in notes]
    assert [d.body for d in collection.documents] == [f"{n['note_title']} {n['note_content']}" for n in notes]
    assert [d.images for d in collection.documents] == [(str(generated / n["image_path"][0]),) for n in notes]
    for split in ("train", "test"):
        examples, made = {}, {}
        for number, row in enumerate(table(generated, f"{task}_{split}")):
            name = str(number) if split == "test" else f"train-{row[key]}"
            results = sorted(row[column], key=lambda item: item["position"])
            shown = [str(item["note_idx"]) for item in results]
            clicked = {str(item["note_idx"]) for item in results if item["click"]}
            assert collection.qrels[split][name] == dict.fromkeys(clicked, 1)
            assert collection.top_ranked[split][name] == tuple(shown)
            examples |= {(name, note): tuple(n for n in shown if n not in clicked) for note in clicked}
            query = collection.queries.named(name)
            assert query.text == row["query"] and query.meta["user_idx"] == row["user_idx"]
            assert query.meta["recent_clicked_note_idxs"] == row["recent_clicked_note_idxs"]
            for ours, theirs in zip(query.meta["exposed"], results, strict=True):
                time = theirs.get("search_timestamp") or theirs.get("request_timestamp")
                spent = None if theirs["page_time"] != theirs["page_time"] else theirs["page_time"]
                expected = (str(theirs["note_idx"]), theirs["position"], theirs["click"], spent, time)
                assert tuple(ours[k] for k in ("note", "position", "click", "page_time", "timestamp")) == expected
        for triple in collection.examples[split].triples():
            made[triple.query_id, triple.pos_id] = triple.neg_ids
        assert made == examples and len(collection.examples[split]) == len(examples)
        example = collection.train_on(split)[0]
        assert (
            example.positive.images and example.query.text and len(example.negatives) == len(next(iter(made.values())))
        )
    rows = len(table(generated, f"{task}_test"))
    said = f"{task}.test.qrels.csv: {rows} of {rows} rows have the clicks that it lists under their number; 0 of its"
    assert any(note.startswith(said) for note in collection.notes)
    assert read_qilin_qrels(generated / f"{task}.test.qrels.csv") == collection.qrels["test"]


def as_numpy_prints(value):
    """What pandas writes of a cell of the original."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = [numpy.array(pair) for pair in value]
    if isinstance(value, list):
        filled = numpy.empty(len(value), dtype=object)
        filled[:] = value
        numbers = not value or isinstance(value[0], int | float)
        return str(numpy.array(value) if numbers else filled)
    return value


def test_csv_jsonl_and_shards_give_what_parquet_gives(generated, tmp_path):
    folders = {form: tmp_path / form for form in ("csv", "jsonl", "shards")}
    for folder in folders.values():
        shutil.copytree(generated / "image", folder / "image")
        shutil.copy(generated / "search.test.qrels.csv", folder)
    for name in ("notes", "search_train", "search_test"):
        rows = table(generated, name)
        printed = [{key: as_numpy_prints(value) for key, value in row.items()} for row in rows]
        pandas.DataFrame(printed).to_csv(folders["csv"] / f"{name}.csv", index=False)
        (folders["jsonl"] / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folders["shards"] / name).mkdir()
        whole = pyarrow.parquet.read_table(generated / f"{name}.parquet")
        for i, shard in enumerate((whole[:7], whole[7:])):
            pyarrow.parquet.write_table(shard, folders["shards"] / name / f"train-{i:05}-of-00002.parquet")
    parquet = read_qilin(generated)
    for folder in folders.values():
        other = read_qilin(folder)
        moved = [(d.id, d.body, [i.replace(str(folder), str(generated)) for i in d.images]) for d in other.documents]
        assert moved == [(d.id, d.body, list(d.images)) for d in parquet.documents]
        assert [d.meta for d in other.documents] == [d.meta for d in parquet.documents]
        assert list(other.queries) == list(parquet.queries)
        for split in ("train", "test"):
            assert other.qrels[split] == parquet.qrels[split]
            assert other.top_ranked[split] == parquet.top_ranked[split]
            assert list(other.examples[split].triples()) == list(parquet.examples[split].triples())
        assert other.notes == parquet.notes


def test_the_hub_is_read_by_its_configurations(generated, monkeypatch):
    import datasets

    load, asked = datasets.load_dataset, []

    def from_hub(name, config=None, **options):
        if name == "parquet":
            return load(name, config, **options)
        asked.append((name, config))
        return load("parquet", data_files=str(generated / f"{config}.parquet"))

    monkeypatch.setattr("datasets.load_dataset", from_hub)
    names = ["dqa", "notes", "search_train", "user_feat", "recommendation_test"]
    monkeypatch.setattr("datasets.get_dataset_config_names", lambda _: names)
    collection = read_qilin("someone/qilin-of-the-tests", root=generated)
    assert asked == [("someone/qilin-of-the-tests", name) for name in ("notes", "search_train")]
    assert list(collection.qrels) == ["train"] and collection.qrels["train"] == read_qilin(generated).qrels["train"]
    assert all(document.images for document in collection.documents)

    def unreachable(_):
        raise ConnectionError("no way\nthere")

    monkeypatch.setattr("datasets.get_dataset_config_names", unreachable)
    with pytest.raises(InputError, match=r"someone/else: no such folder, and not to be had from the hub \(no way\)"):
        read_qilin("someone/else")


def test_a_note_shown_twice_stands_first_and_is_clicked_if_ever(tmp_path):
    again = search(7, result(2, 3, 1.0), result(1, 1.0), result(2, 2), result(3, 4), result(1, 9, 1))
    collection = read_qilin(written(tmp_path, search_train=[again]))
    assert collection.qrels["train"] == {"train-7": {"1": 1, "2": 1}}
    assert collection.top_ranked["train"] == {"train-7": ("1", "2", "3")}
    assert [t.neg_ids for t in collection.examples["train"].triples()] == [("3",), ("3",)]
    assert [item["position"] for item in collection.queries[0].meta["exposed"]] == [1, 2, 3, 4, 9]
    assert collection.notes == (
        "search_train: 1 queries, 3 notes shown, 2 clicked",
        "search_train: 2 results show a note again: it stands where it was shown first",
    )


def test_what_is_left_out_is_counted(tmp_path):
    rows = [
        search(0, result(0, 1), result(1, 2)),
        search(1, result(99, 1, 1), result(2, 2)),
        search(2, result(98, 1), result(99, 2), result(3, 3, 1)),
        search(3, result(98, 1, 1)),
    ]
    collection = read_qilin(written(tmp_path, search_test=rows))
    assert list(collection.qrels) == ["test"] and collection.qrels["test"] == {"2": {"3": 1}}
    assert collection.top_ranked["test"] == {"0": ("0", "1"), "1": ("2",), "2": ("3",)}
    assert len(collection.queries) == 4 and len(collection.examples["test"]) == 1
    assert collection.notes == (
        "search_test: 4 queries, 4 notes shown, 1 clicked",
        "search_test: 4 results left out: 2 notes that are not in notes",
        "search_test: 1 queries without a click",
        "search_test: 2 queries clicked only notes that are not in notes",
    )
    with pytest.raises(InputError, match=r"notes: none of the 1 notes shown is there: give the notes"):
        read_qilin(written(tmp_path / "others", search_test=[search(0, result(50, 1, 1))]))


def test_missing_and_ambiguous_tables_are_said(tmp_path):
    row = search(0, result(0, 1, 1))
    folder = written(tmp_path / "a", search_train=[row])
    assert list(read_qilin(folder).qrels) == ["train"]
    with pytest.raises(InputError, match="neither recommendation_train nor recommendation_test"):
        read_qilin(folder, task="recommendation")
    (folder / "notes.csv").write_text("note_idx\n1\n")
    with pytest.raises(InputError, match=r"notes: both notes\.csv and notes\.jsonl are there: keep one"):
        read_qilin(folder)
    (folder / "notes.csv").unlink()
    (folder / "notes.jsonl").rename(folder / "kept")
    with pytest.raises(InputError, match="no table of notes"):
        read_qilin(folder)
    for rows in ({"notes": []}, {"search_train": []}):
        with pytest.raises(InputError, match="empty"):
            read_qilin(written(tmp_path / str(*rows), **{"search_train": [row], **rows}))


def test_covers_are_the_first_pictures_and_what_is_missing_is_said(tmp_path, caplog):
    notes = [dict(note, image_path=[f"image/{n}.png", "image/other.png"]) for n, note in enumerate(NOTES)]
    notes[0]["image_path"] = []
    folder = written(tmp_path, notes, search_train=[search(0, result(1, 1, 1))])
    bare = read_qilin(folder)
    assert not any(document.images for document in bare.documents)
    assert bare.notes[0] == f"notes: 3 covers are not under {folder}, nor is any other: these documents are text alone"
    (folder / "elsewhere/image").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "elsewhere/image/1.png")
    with pytest.raises(InputError, match=r"notes\.jsonl:3: image_path: no such file '.*image/2\.png': name the"):
        read_qilin(folder, root=folder / "elsewhere")
    some = read_qilin(folder, strict=False, root=folder / "elsewhere")
    assert [len(document.images) for document in some.documents] == [0, 1, 0, 0]
    assert some.documents[1].images == (str(folder / "elsewhere/image/1.png"),)
    assert some.notes[0].startswith("notes: 2 covers are not under") and "others are" in some.notes[0]


@pytest.mark.parametrize("pictures", [[], ["gone.png"], ["x" * 5000 + ".png"], ["a\0b"]])
def test_a_note_with_nothing_to_show_is_an_error_or_skipped(tmp_path, pictures):
    notes = [*NOTES, {"note_idx": 4, "note_title": " ", "note_content": None, "image_path": pictures}]
    folder = written(tmp_path, notes, search_train=[search(0, result(1, 1, 1), result(4, 2))])
    with pytest.raises(InputError, match=r"notes\.jsonl:5: .*image_path: (all empty|no such file)"):
        read_qilin(folder)
    lenient = read_qilin(folder, strict=False)
    assert len(lenient.documents) == 4 and lenient.notes[0] == "notes: 1 bad rows skipped"
    assert "search_train: 1 results left out: 1 notes that are not in notes" in lenient.notes


def test_bad_notes_are_said_and_none_that_can_be_read_is_an_error_without_strict_too(tmp_path, caplog):
    row = search(0, result(0, 1, 1))
    twice = written(tmp_path / "twice", [*NOTES, NOTES[2]], search_train=[row])
    with pytest.raises(InputError, match=r"notes\.jsonl:5: note_idx: 2 stands in an earlier row"):
        read_qilin(twice)
    with caplog.at_level(logging.WARNING):
        assert read_qilin(twice, strict=False).notes[0] == "notes: 1 bad rows skipped"
    assert "note_idx: 2 stands in an earlier row" in caplog.text
    with pytest.raises(InputError, match=r"none of 4 rows could be read; the last: .*note_idx: missing"):
        read_qilin(written(tmp_path / "none", [{"note_title": "t"}] * 4, search_train=[row]), strict=False)
    with pytest.raises(InputError, match=r"image_path: \[3\] has what is no text"):
        read_qilin(written(tmp_path / "n", [{"note_idx": 0, "note_title": "t", "image_path": [3]}], search_train=[row]))


def test_the_official_qrels_are_compared_with_the_clicks(tmp_path):
    rows = [search(n, result(n, 1, 1), result(3, 2)) for n in range(3)]
    folder = written(tmp_path, search_test=rows)
    (folder / "search.test.qrels.csv").write_text("\ufeffqid,pid\r\n0,0\r\n1,2\r\n2,9\r\n\r\n5,1\r\n")
    note = read_qilin(folder).notes[-1]
    said = "search.test.qrels.csv: 1 of 3 rows have the clicks that it lists under their number, 2 have not (2 of them"
    assert note.startswith(said) and note.endswith("; 1 of its 4 queries are not in the table")


def test_embeddings_are_not_read(generated):
    notes = open_tables(str(generated / "notes.parquet"))["train"].select(("note_idx", "note_title", "not a column"))
    assert set(notes.row(3).values) == {"note_title", "note_idx"} and notes.row(3).values["note_idx"] == 3
    assert [set(row.values) for row in notes] == [{"note_title", "note_idx"}] * 60


def test_a_broken_character_anywhere_in_a_table_is_read_or_an_input_error(generated, tmp_path):
    rng = random.Random(0)
    text = "".join(json.dumps(row) + "\n" for row in table(generated, "search_test")[:2])
    written(tmp_path, [{"note_idx": n, "note_title": "t"} for n in range(60)])
    for attempt in range(60):
        at = rng.randrange(len(text))
        folder = tmp_path / str(attempt)
        folder.mkdir()
        (folder / "notes.jsonl").symlink_to(tmp_path / "notes.jsonl")
        (folder / "search_test.jsonl").write_text(text[:at] + rng.choice('[]{}",:0.x\n\\') + text[at + 1 :])
        try:
            collection = read_qilin(folder)
            assert list(collection.queries) and collection.qrels["test"] is not None
        except InputError as error:
            assert "search_test.jsonl" in str(error)
