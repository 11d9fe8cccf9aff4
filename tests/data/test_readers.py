import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from colmrl.config import DataConfig
from colmrl.data import reading
from colmrl.data.beir import read_beir, read_corpus, read_qrels, read_queries
from colmrl.data.reading import read_collection, read_training
from colmrl.data.records import Document, Examples, Query, Triple
from colmrl.data.triples import has_ids, read_triples, write_triples
from colmrl.errors import InputError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "qrels").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    lines(tmp_path / "corpus.jsonl", {"_id": "d1", "title": "T", "text": "x"}, {"_id": "d2", "image": "a.png"})
    lines(tmp_path / "queries.jsonl", {"_id": "q1", "text": "one"}, {"_id": "q2", "text": "two"})
    (tmp_path / "qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td2\t2\n")
    return tmp_path


def lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def ids(folder):
    return {q.id for q in read_queries(folder)}, {d.id for d in read_corpus(folder)}


def test_the_beir_layout_is_read_whole(folder):
    documents = read_corpus(folder)
    assert list(documents) == [Document("d1", "x", "T"), Document("d2", images=(str(folder / "a.png"),))]
    assert documents[0].body == "T x"
    qrels = read_qrels(folder, "train", *ids(folder))
    assert qrels == {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2}}
    pairs = read_beir(folder).train_on("train")
    assert [(p.query.id, p.positive.id) for p in pairs] == [("q1", "d1"), ("q2", "d2")]


def test_malformed_line_412_is_named_and_the_rest_kept_where_that_is_asked_for(folder, caplog):
    rows = [{"_id": f"d{n}", "text": "x"} for n in range(500)]
    lines(folder / "corpus.jsonl", *rows[:411], '{"_id": "broken', *rows[412:])
    with pytest.raises(InputError, match=r"corpus\.jsonl:412: line: not JSON"):
        read_corpus(folder)
    with caplog.at_level(logging.WARNING):
        assert len(read_corpus(folder, strict=False)) == 499
    assert "corpus.jsonl:412" in caplog.text and "skipped 1 bad lines, read 499" in caplog.text


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"_id": "d3", "image": "no.png"}, r"corpus\.jsonl:3: image: no such file .*no\.png"),
        ({"_id": "d1", "text": "again"}, r"corpus\.jsonl:3: _id: 'd1' stands on an earlier line"),
        ({"text": "x"}, r"corpus\.jsonl:3: _id: missing"),
        ({"_id": "d3"}, r"corpus\.jsonl:3: text, image: both empty"),
        ({"_id": "d3", "text": ["x"]}, r"corpus\.jsonl:3: text: .* is a list"),
        ({"_id": "d3", "image": [3]}, r"corpus\.jsonl:3: image: 3 is a int"),
        ({"_id": "d3", "text": "\ud800"}, r"corpus\.jsonl:3: text: .* half a surrogate pair"),
        ("[1]", r"corpus\.jsonl:3: line: a list"),
    ],
)
def test_a_bad_document_is_said_with_file_line_and_field(folder, row, says):
    text = (folder / "corpus.jsonl").read_text()
    (folder / "corpus.jsonl").write_text(text + (row if isinstance(row, str) else json.dumps(row)) + "\n")
    with pytest.raises(InputError, match=says):
        read_corpus(folder)
    assert len(read_corpus(folder, strict=False)) == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("q9\td1\t1", r"train\.tsv:5: query-id: unknown id 'q9'"),
        ("q1\td9\t1", r"train\.tsv:5: corpus-id: unknown id 'd9'"),
        ("q1\td1\tyes", r"train\.tsv:5: score: 'yes'"),
        ("q1 d1 1", r"train\.tsv:5: line: 1 fields"),
        ("q1\td1\t99999999999999999999", r"train\.tsv:5: score: '9+' is not a small integer"),
        ("q1\td1\t0", r"train\.tsv:5: score: an earlier line has another for 'q1' and 'd1'"),
        (b"q1\td\xff\t1", r"train\.tsv:5: line: not UTF-8"),
    ],
)
def test_a_bad_judgement_is_said_with_file_line_and_field(folder, line, says):
    path = folder / "qrels/train.tsv"
    path.write_bytes(path.read_bytes() + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    with pytest.raises(InputError, match=says):
        read_qrels(folder, "train", *ids(folder))
    assert len(read_qrels(folder, "train", *ids(folder), strict=False)) == 2


def test_what_is_not_there_is_said(folder):
    with pytest.raises(InputError, match=r"no split 'dev' .*: choose from train"):
        read_beir(folder).judged("dev")
    for missing in (folder / "elsewhere", "elsewhere", "../else/where"):
        with pytest.raises(InputError, match="no such data set"):
            read_collection(str(missing), DataConfig())
    (folder / "corpus.jsonl").write_text("\n")
    with pytest.raises(InputError, match="empty corpus"):
        read_corpus(folder)


def test_a_hub_data_set_is_downloaded_once_and_read_as_a_folder(folder, monkeypatch):
    asked = []

    def download(name, repo_type, allow_patterns):
        asked.append((name, repo_type))
        if name == "nobody/nothing":
            raise OSError("offline\nand more")
        return str(folder)

    def there(name, file, repo_type):
        if name == "nobody/here":
            raise OSError("no route")
        return True

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("huggingface_hub.file_exists", there)
    for cached in (reading._keeps_beir_files, reading._from_hub):
        cached.cache_clear()
    for _ in range(2):
        found = read_collection("mteb/scifact", DataConfig())
        assert (len(found.documents), len(found.queries)) == (2, 2)
    assert asked == [("mteb/scifact", "dataset")]
    for name, reason in (("nobody/nothing", "offline"), ("nobody/here", "no route")):
        with pytest.raises(InputError, match=rf"data\.path: '{name}': no such folder.*\({reason}\)"):
            read_collection(name, DataConfig())


def test_of_a_corpus_only_ids_and_places_are_kept(folder):
    """The peak of reading is that of the ids, whatever the texts weigh; what is asked for is read then."""
    import tracemalloc

    peaks = {}
    for size in (10, 10_000):  # characters a document
        lines(folder / "corpus.jsonl", *({"_id": f"d{n}", "text": "x" * size} for n in range(2000)))
        tracemalloc.start()
        documents = read_corpus(folder)
        peaks[size] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[10_000] < 1.2 * peaks[10] + 200_000
    assert documents[1999].text == "x" * 10_000 and documents[-1].id == "d1999"


def test_a_line_that_changed_since_it_was_checked_is_said(folder):
    documents = read_corpus(folder)
    path = folder / "corpus.jsonl"
    path.write_text(path.read_text().replace('"_id"', '"_xx"'))
    with pytest.raises(InputError, match=r"corpus\.jsonl:1: _id: missing"):
        documents[0]


def test_a_byte_order_mark_is_no_part_of_the_header(folder):
    path = folder / "qrels/train.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_qrels(folder, "train", *ids(folder))) == 2


def test_numbers_as_ids_are_read_as_their_text(folder):
    lines(folder / "corpus.jsonl", {"_id": 7, "text": "x"})
    assert read_corpus(folder)[0].id == "7"


def test_mined_triples_survive_being_written_and_read(folder):
    documents, queries = read_corpus(folder), read_queries(folder)
    triples = [Triple("q1", "d1", ("d2",), 0.75, (0.5,)), Triple("q2", "d2", (), 0.5, ())]
    path = folder / "triples.jsonl"
    assert write_triples(path, triples, queries, documents, str(folder)) == 2
    assert has_ids(path) and read_triples(path, *ids(folder)) == triples
    assert json.loads(path.read_text().splitlines()[0]) | {
        "query": "one",
        "pos": "T x",
        "negs": ["a.png"],
    } == json.loads(path.read_text().splitlines()[0])
    write_triples(path, [Triple("q1", "d1", ("d2",))], queries, documents, str(folder))
    assert read_triples(path, *ids(folder)) == [Triple("q1", "d1", ("d2",))]  # without scores
    write_triples(path, triples, queries, documents, str(folder))
    examples = Examples(queries, documents, triples)
    assert [e.positive.id for e in examples] == ["d1", "d2"] and examples[0].negatives == (documents[1],)
    with pytest.raises(InputError, match=r"triples\.jsonl:1: neg_ids: unknown id 'd2'"):
        read_triples(path, {"q1", "q2"}, {"d1"})
    with pytest.raises(InputError, match=r"triples\.jsonl:2: query_id: unknown id 'q2'"):
        read_triples(path, {"q1"}, {"d1", "d2"})


def test_triples_of_paths_and_texts_are_read_under_a_root(folder):
    path = lines(folder / "t.jsonl", {"query": "q", "pos": "a.png", "negs": ["some text"]})
    assert not has_ids(path)
    examples, positives = read_training(DataConfig(triples=str(path), root=str(folder)))
    (example,) = examples
    assert example.positive.images == (str((folder / "a.png").resolve()),)
    assert example.negatives[0].text == "some text" and example.query == Query(example.query.id, "q")
    assert positives == {example.query.id: {example.positive.id}}
    with pytest.raises(InputError, match=r"t\.jsonl:1: pos: no such file .*--root"):
        read_training(DataConfig(triples=str(path), root=str(folder / "elsewhere")))


@settings(deadline=None, max_examples=150)
@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["_id", "text", "title", "image", "meta", "query", "pos", "negs", "neg_scores"]), inner
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_line_whatsoever_gives_a_traceback(tmp_path_factory, line):
    folder = tmp_path_factory.mktemp("fuzz")
    for name, read in (
        ("corpus.jsonl", lambda: read_corpus(folder)),
        ("queries.jsonl", lambda: read_queries(folder)),
        ("t.jsonl", lambda: read_triples(folder / "t.jsonl", set(), set())),
    ):
        (folder / name).write_bytes(line)
        try:
            read()
        except InputError as error:
            assert name in str(error)
