"""Ten real rows of each of Qilin's tables and its official qrels, from ../shared; skipped, saying so, where absent."""

import re
from pathlib import Path

import pandas
import pyarrow.parquet
import pytest

from colmrl.data.qilin import read_qilin, read_qilin_qrels
from colmrl.data.qilin_rows import parse_cell
from colmrl.data.qilin_sample import write_qilin_sample

FOLDER = Path(__file__).parents[3] / "shared/data/qilin_sample"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not there")
DETAILS = {"search": "search_result_details_with_idx", "recommendation": "rec_result_details_with_idx"}
TABLES = ["notes", "search_train", "search_test", "recommendation_train", "recommendation_test", "user_feat"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_UPDATE_DOWNLOAD_COUNTS", False)  # no network


def raw(name):
    return pandas.read_csv(FOLDER / f"{name}.csv")


def shown(cell):
    """(note, clicked) of each result, by regular expressions on the raw text."""
    notes = re.findall(r"'note_idx': (\d+)", cell)
    return list(zip(notes, [float(click) > 0 for click in re.findall(r"'click': ([\d.]+)", cell)], strict=True))


def is_list(column):
    return all(isinstance(cell, str) and cell.startswith("[") for cell in column)


@pytest.fixture
def with_notes(tmp_path):
    """The real searches and requests, with a note of one's own for each that they show."""
    folder = tmp_path / "qilin"
    folder.mkdir()
    ids = set()
    for path in sorted(FOLDER.glob("*_t*.csv")):
        (folder / path.name).symlink_to(path)
        ids |= set(re.findall(r"'note_idx': (\d+)", path.read_text()))
    for path in FOLDER.glob("*.test.qrels.csv"):
        (folder / path.name).symlink_to(path)
    rows = pandas.DataFrame({"note_idx": sorted(map(int, ids)), "note_title": "a note", "note_content": ""})
    rows.to_csv(folder / "notes.csv", index=False)
    return folder


@pytest.mark.parametrize("name", [*TABLES, "dqa"])
def test_every_list_of_the_real_rows_is_read_whole(name):
    rows = raw(name)
    assert len(rows) == 10
    for column in rows.columns:
        if not is_list(rows[column]):
            continue
        for cell in rows[column]:
            value = parse_cell(cell)
            if "array(" in cell:
                numbers = [re.findall(r"[\d.e+-]+", one) for one in re.findall(r"array\(\[(.*?)\]\)", cell, re.DOTALL)]
                assert value == [[float(number) for number in pair] for pair in numbers]
            elif "{" in cell:
                assert [(str(item["note_idx"]), item["click"] > 0) for item in value] == shown(cell)
                assert len(value) == cell.count("{") and {len(item) for item in value} == {10}
            elif "'" in cell:
                assert value == cell.strip("[]").replace("'", "").split()
            else:
                assert value == [float(number) for number in cell.strip("[]").split()]


@pytest.mark.parametrize("task", ["search", "recommendation"])
def test_clicks_and_exposures_of_the_real_rows_are_those_of_the_raw_text(task, with_notes):
    collection = read_qilin(with_notes, task=task)
    assert len(collection.queries) == 20
    for split in ("train", "test"):
        rows = raw(f"{task}_{split}")
        results = [shown(cell) for cell in rows[DETAILS[task]]]
        ids = [collection.queries.ids[number] for number in (range(10) if split == "train" else range(10, 20))]
        clicked = [{note for note, click in row if click} for row in results]
        assert [set(collection.qrels[split][name]) for name in ids] == clicked
        assert [set(collection.top_ranked[split][name]) for name in ids] == [{n for n, _ in row} for row in results]
        assert len(collection.examples[split]) == sum(map(len, clicked))
        for name, row, text in zip(ids, results, rows["query"], strict=True):
            query = collection.queries.named(name)
            assert query.text == text and len(query.meta["exposed"]) == len(row)
        again = sum(len(row) - len({note for note, _ in row}) for row in results)
        said = f"{task}_{split}: {again} results show a note again: it stands where it was shown first"
        assert (said in collection.notes) is (again > 0)


def test_the_real_notes_are_read_as_texts_where_no_cover_is_there(tmp_path):
    (tmp_path / "notes.csv").symlink_to(FOLDER / "notes.csv")
    results = [{"note_idx": n, "position": n + 1, "click": float(n == 3)} for n in range(10)]
    row = {"query": "饺子", "search_idx": 5, "search_result_details_with_idx": results}
    pandas.DataFrame([row]).to_json(tmp_path / "search_test.jsonl", orient="records", lines=True)
    collection, rows = read_qilin(tmp_path), raw("notes")
    assert [(d.title, d.text) for d in collection.documents] == list(
        zip(rows.note_title, rows.note_content, strict=True)
    )
    assert not any(document.images for document in collection.documents)
    named = sum("image/" in cell for cell in rows.image_path)
    assert any(note.startswith(f"notes: {named} covers are not under") for note in collection.notes)
    assert collection.documents[0].meta["video_duration"] == 227 and "taxonomy3_id" not in collection.documents[1].meta
    assert collection.qrels["test"] == {"0": {"3": 1}} and list(collection.qrels) == ["test"]


def test_the_official_search_qrels_are_read_whole():
    qrels = read_qilin_qrels(FOLDER / "search.test.qrels.csv")
    assert sum(map(len, qrels.values())) == 27_597
    assert sorted(map(int, qrels)) == list(range(6192))  # as many as search_test has rows


def test_the_official_qid_is_a_row_number_and_no_search_idx(with_notes):
    """dqa's ten rows are its first ten; the other tables' ten are of a table in another order."""
    qrels = read_qilin_qrels(FOLDER / "dqa.qrels.csv")
    for number, cell in enumerate(raw("dqa").search_result_details_with_idx):
        assert {note for note, click in shown(cell) if click} == set(qrels.get(str(number), ()))
    for task, key in (("search", "search_idx"), ("recommendation", "request_idx")):
        known = {qid: set(judged) for qid, judged in read_qilin_qrels(FOLDER / f"{task}.test.qrels.csv").items()}
        rows = raw(f"{task}_test")
        for number, cell in zip(rows[key], rows[DETAILS[task]], strict=True):
            clicked = {note for note, click in shown(cell) if click}
            assert sum(clicked == judged for judged in known.values()) == 1 and str(number) not in known
        note = next(note for note in read_qilin(with_notes, task=task).notes if "qrels.csv" in note)
        assert "0 of 10 rows have the clicks" in note and "10 have not (10 of them have another number's" in note


def test_a_sample_whose_notes_are_others_than_those_shown_is_refused():
    with pytest.raises(ValueError, match=r"notes: none of the \d+ notes shown is there"):
        read_qilin(FOLDER)


def test_generated_tables_have_the_columns_and_types_of_the_real_ones(tmp_path):
    folder = write_qilin_sample(tmp_path / "q", searches=20, notes=24, test_searches=10)
    for name in TABLES:
        rows, schema = raw(name), pyarrow.parquet.read_schema(folder / f"{name}.parquet")
        assert schema.names == list(rows.columns), name
        for column in rows.columns:
            real = (
                "list"
                if is_list(rows[column])
                else {"i": "int64", "f": "double"}.get(rows[column].dtype.kind, "string")
            )
            assert str(schema.field(column).type).startswith(real), (name, column)
    for name, column in ((f"{task}_{split}", DETAILS[task]) for task in DETAILS for split in ("train", "test")):
        real = parse_cell(raw(name)[column][0])[0]
        generated = pyarrow.parquet.read_table(folder / f"{name}.parquet")[column][0].as_py()[0]
        assert {key: type(value) for key, value in generated.items()} == {
            key: type(value) for key, value in real.items()
        }
