import re
from pathlib import Path

import numpy
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colmrl.data.qilin import read_qilin, read_qilin_qrels
from colmrl.data.qilin_rows import cover, note_document, parse_cell, search_query
from colmrl.data.tables import TableRow
from colmrl.errors import InputError

SEARCH = "search_result_details_with_idx"
CELL = "[{'note_idx': 1, 'click': 1.0, 'position': 2.0}]"
NOTES = [{"note_idx": n, "note_title": f"title {n}", "note_content": ""} for n in range(4)]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setattr("datasets.config.HF_UPDATE_DOWNLOAD_COUNTS", False)  # no network


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(values)
@settings(max_examples=100, deadline=None)
def test_what_python_prints_is_read_back(value):
    assert parse_cell(repr(value)) == value
    assert parse_cell(f" {value!r}\n") == value


@given(st.lists(st.integers(0, 10**7), min_size=1), st.lists(st.floats(-1e6, 1e6, width=32), min_size=1))
@settings(max_examples=50, deadline=None)
def test_what_numpy_prints_is_read_back(whole, real):
    whole, real = whole[:900], real[:900]  # longer ones numpy cuts
    assert parse_cell(str(numpy.array(whole))) == whole
    printed = parse_cell(str(numpy.array(real)))
    assert printed == pytest.approx(real, rel=1e-6, abs=1e-6)
    pairs = numpy.array([None, *(numpy.array(pair) for pair in zip(whole, real, strict=False))], dtype=object)[1:]
    assert [pair[0] for pair in parse_cell(str(pairs))] == pytest.approx(whole[: len(pairs)], rel=1e-6)


def test_strings_may_hold_quotes_newlines_and_braces():
    texts = ["it's", 'say "no"', "a\nb", "[1 2]", "{'a': 1}", "\\", "', '", "\x00\u2028", "🧨", ""]
    filled = numpy.array([*texts, None], dtype=object)[:-1]
    assert parse_cell(str(filled)) == texts and parse_cell("['a\nb']") == ["a\nb"]
    assert parse_cell("array([], dtype=float64)") == []


PIECES = [*"[]{}():,'\"\\1 \nx", "array(", "-2.5e9", "nan", "None"]
PIECES += ["'click'", "'note_idx'", "'position'", "...", "9" * 5000, "1e999", "\\ud800", "\\U99999999", "inf"]
cells = st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | st.text(max_size=30)
broken = st.tuples(st.integers(0, len(CELL)), st.integers(0, 9), cells).map(
    lambda t: CELL[: t[0]] + t[2] + CELL[t[0] + t[1] :]
)


@given(cells | broken | values, cells | broken | values, values, values)
@settings(max_examples=300, deadline=None)
def test_whatever_a_cell_holds_it_is_read_or_an_input_error(details, recent, number, text):
    row = TableRow(
        Path("t"), 0, {SEARCH: details, "recent_clicked_note_idxs": recent, "query": text, "search_idx": number}
    )
    note = TableRow(
        Path("t"), 0, {"image_path": recent, "note_title": text, "note_content": details, "image_num": number}
    )
    for read in (lambda: search_query(row, "q", "search"), lambda: cover(note), lambda: note_document(note, "n", ())):
        try:
            read()
        except InputError as error:
            assert str(error).startswith("t: row 0: ")


@pytest.mark.parametrize(
    ("column", "cell", "says"),
    [
        (SEARCH, "[{'note_idx': 1, ...}]", "cannot be read at character 17, '...}]'"),
        (SEARCH, "[{'note_idx': 1", "'{' is not closed"),
        (SEARCH, "__import__('os').system('true')", "cannot be read at character 0"),
        (SEARCH, CELL.replace("1.0", "2.0"), "2.0 is neither 0 nor 1"),
        (SEARCH, CELL.replace("1.0", "nan"), "nan is neither 0 nor 1"),
        (SEARCH, CELL.replace("'note_idx': 1", "'note_idx': 1.5"), "1.5 is no whole number"),
        (SEARCH, CELL.replace("2.0", "nan"), "nan is no whole number"),
        (SEARCH, CELL.replace("'position': 2.0", "'page_time': 'long', 'position': 1"), "'long' is no number"),
        (SEARCH, "[1 2]", "1 is no result"),
        (SEARCH, "{'a': 1}", "is a dict"),
        (SEARCH, None, "missing"),
        ("recent_clicked_note_idxs", "[1 2 ... 8 9]", "cannot be read at character 5"),
        ("recent_clicked_note_idxs", "['a']", "'a' is no whole number"),
        ("search_idx", 0.5, "0.5 is no whole number"),
        ("search_idx", 0, "0 stands in an earlier row"),
        ("query", " ", "empty"),
    ],
)
def test_a_bad_cell_is_said_with_table_row_and_column(tmp_path, column, cell, says):
    good = {"query": "one", "search_idx": 0, "recent_clicked_note_idxs": "[1 2\n 3]", SEARCH: CELL}
    rows = pandas.DataFrame([good, {**good, "search_idx": 1, "query": "two", column: cell}, {**good, "search_idx": 2}])
    pandas.DataFrame(NOTES).to_csv(tmp_path / "notes.csv", index=False)
    rows.to_csv(tmp_path / "search_test.csv", index=False)
    with pytest.raises(InputError) as error:
        read_qilin(tmp_path)
    said = str(error.value)
    assert re.search(rf"search_test\.csv/train: row 1: {column}(\.\w+)?: ", said) and says in said, said
    lenient = read_qilin(tmp_path, strict=False)
    assert list(lenient.queries.ids) == ["0", "2"]  # a skipped row does not move the others' official numbers
    assert "search_test: 1 bad rows skipped" in lenient.notes


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("qid,pid\n1,2\n1;2\n", r"q\.csv:3: line: b'1;2' is not two numbers: write qid,pid"),
        ("qid,pid\n1,-2\n", r"q\.csv:2: line"),
        ("1,2\n", r"q\.csv:1: line: b'1,2' is not the header"),
        ("qid,pid\n", r"q\.csv: no judgements"),
        ("", r"q\.csv: no judgements"),
    ],
)
def test_bad_official_qrels_are_said_with_line(tmp_path, text, says):
    (tmp_path / "q.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        read_qilin_qrels(tmp_path / "q.csv")
    with pytest.raises(InputError, match="no such file"):
        read_qilin_qrels(tmp_path / "other.csv")
