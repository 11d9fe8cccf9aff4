"""Every convention of tables: recognised, read, written back the same; whatever is wrong is said with its place."""

import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from colmrl.config import DataConfig
from colmrl.data.convention_rows import write_convention
from colmrl.data.conventions import Convention, meaning, recognise
from colmrl.data.convert import with_fields, write_beir
from colmrl.data.jsonl import Row
from colmrl.data.media import open_image
from colmrl.data.reading import read_collection, read_training
from colmrl.data.records import Collection, Document, Examples, Query, Records, Triple
from colmrl.data.table_collection import read_tables
from colmrl.data.tables import open_tables
from colmrl.errors import InputError

CONVENTIONS = get_args(Convention)


@pytest.fixture(autouse=True)
def _hub_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    open_tables.cache_clear()


def read(path, **settings):
    open_tables.cache_clear()
    return read_collection(str(path), DataConfig(**settings))


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def collection(tmp_path, kind, negatives=2):
    """Eight queries and sixteen documents: texts, pictures, or both."""
    documents = []
    for n in range(16):
        path = tmp_path / f"p{n}.png"
        Image.new("RGB", (6, 4), (n * 15, 255 - n * 15, n)).save(path)
        text = "" if kind == "image" else f"body {n}\nsecond “line” \\ {n}"
        documents.append(Document(f"d{n}", text, images=() if kind == "text" else (str(path),)))
    queries = [Query(f"q{n}", f"query {n} ?") for n in range(8)]
    triples = [Triple(f"q{n}", f"d{n}", tuple(f"d{(n + 8 + i) % 16}" for i in range(negatives))) for n in range(8)]
    records = Records.of(queries), Records.of(documents)
    qrels = {"train": {t.query_id: {t.pos_id: 1} for t in triples}}
    return Collection("made", records[1], records[0], qrels, {"train": Examples(*records, triples)})


def shown(example):
    """An example by what it shows: texts and pixels."""

    def one(record):
        text = record.body if isinstance(record, Document) else record.text
        return text, tuple(np.asarray(open_image(image)).tobytes() for image in record.images)

    return one(example.query), one(example.positive), tuple(one(d) for d in example.negatives)


HELD = {"text": set(CONVENTIONS) - {"query-image"}, "image": set(CONVENTIONS)}
HELD["both"] = {"sentence-transformers", "tevatron", "ms-swift"}


@pytest.mark.parametrize("kind", ["text", "image", "both"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_records_to_a_convention_and_back_are_the_same(tmp_path, convention, kind):
    made = collection(tmp_path, kind, negatives=0 if convention == "query-image" else 2)
    if convention not in HELD[kind]:
        with pytest.raises(InputError, match=rf"document 'd\d+': {convention} cannot hold .*--to beir"):
            write_convention(made, convention, tmp_path / "out")
        return
    write_convention(made, convention, tmp_path / "out")
    back = read(tmp_path / "out")  # recognised: no format is named
    assert [shown(e) for e in back.train_on("train")] == [shown(e) for e in made.train_on("train")]
    if convention == "tevatron":  # the one that carries ids
        assert list(back.train_on("train").triples()) == list(made.train_on("train").triples())
    assert len(back.queries) == 8 and back.notes[0] == f"train: read as {convention}"
    if convention == "query-image" or (convention == "tevatron" and kind != "text"):
        assert len(back.documents) == 16  # those that no example shows too


def test_the_beir_layout_holds_everything(tmp_path):
    made = collection(tmp_path, "both")
    made = Collection(
        made.source,
        Records.of([*made.documents, Document("t", "text", "title", meta={"page": 3})]),
        Records.of([*made.queries, Query("i", images=made.documents[0].images, meta={"user": 1})]),
        {**made.qrels, "test": {"i": {"t": 2, "d0": 0}}},
        made.examples,
        {"test": {"i": ("t", "d0", "d3")}},
        {"i": "d0"},
    )
    write_beir(made, tmp_path / "out")
    back = read(tmp_path / "out")
    assert list(back.documents) == list(made.documents) and list(back.queries) == list(made.queries)
    assert {split: back.judged(split) for split in back.qrels} == dict(made.qrels)
    assert list(back.train_on("train").triples()) == list(made.train_on("train").triples())
    assert dict(back.top_ranked) == dict(made.top_ranked) and back.itself == made.itself


@pytest.mark.parametrize("to", ["flagembedding", "triples", "beir"])
def test_a_teachers_scores_survive_being_written_and_read(tmp_path, to):
    made = collection(tmp_path, "text")
    scored = [
        Triple(t.query_id, t.pos_id, t.neg_ids, *((n / 8, (0.25, -n / 2.0)) if n % 3 else (None, None)))
        for n, t in enumerate(made.train_on("train").triples())
    ]
    made = replace(made, examples={"train": Examples(made.queries, made.documents, scored)})
    if to == "beir":
        write_beir(made, tmp_path / "out")
    else:
        write_convention(made, to, tmp_path / "out")
    back = read(tmp_path / "out")
    assert [e.scores for e in back.train_on("train")] == [e.scores for e in made.train_on("train")]
    assert not any("without" in note for note in back.notes)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"pos": ["a", "b"], "neg": ["c"], "pos_scores": [1], "neg_scores": [0]}, "pos_scores: 1 for 2 pos"),
        ({"pos": ["a"], "neg": ["c"], "neg_scores": [0, 1]}, "neg_scores: 2 for 1 neg"),
        ({"pos": "a", "negs": ["c"], "pos_score": [1, 2]}, "pos_score: 2 for 1 pos"),
        ({"pos": "a", "negs": ["c"], "neg_scores": ["x"]}, "neg_scores: 'x' is a str"),
        ({"pos": "a", "negs": ["c"], "neg_scores": [float("inf")]}, "neg_scores: .* not all finite"),
    ],
)
def test_scores_that_fit_no_records_are_said(tmp_path, columns, says):
    with pytest.raises(InputError, match=rf"x\.jsonl:1: {says}"):
        read(lines(tmp_path / "x.jsonl", {"query": "q"} | columns))


def test_each_positive_has_its_own_score_and_the_negatives_theirs(tmp_path):
    row = {"query": "q", "pos": ["a", "b"], "neg": ["c"], "pos_scores": [3, 2.5], "neg_scores": [1]}
    found = read(lines(tmp_path / "x.jsonl", row)).train_on("train")
    assert [(e.positive.text, e.scores) for e in found] == [("a", (3, 1)), ("b", (2.5, 1))]


def test_the_beir_layout_makes_pictures_smaller_where_that_is_asked_for(tmp_path):
    Image.linear_gradient("L").resize((400, 200)).save(tmp_path / "big.png")
    Image.new("RGB", (20, 10)).save(tmp_path / "small.png")
    documents = [Document(name, images=(str(tmp_path / f"{name}.png"),)) for name in ("big", "small")]
    made = Collection("made", Records.of(documents), Records.of([Query("q", "x")]), {"train": {"q": {"big": 1}}})
    write_beir(made, tmp_path / "out", max_pixels=5000)
    back = read(tmp_path / "out")
    big, small = (open_image(d.images[0]) for d in back.documents)
    assert big.size == (100, 50) and small.size == (20, 10)
    left, right = np.asarray(big)[:, 0].mean(), np.asarray(big)[:, -1].mean()
    assert abs(left - right) < 5 and np.asarray(big)[-1].mean() > np.asarray(big)[0].mean() + 200


def test_pictures_alone_are_what_is_written_where_only_they_are_wanted(tmp_path):
    made = with_fields(collection(tmp_path, "both"), ("image",))
    write_convention(made, "colpali", tmp_path / "out")
    assert [shown(e) for e in read(tmp_path / "out").train_on("train")] == [shown(e) for e in made.train_on("train")]


def test_what_others_wrote_is_read_with_their_own_libraries(tmp_path):
    """Our parquet is a data set of `datasets` with pictures, in the columns that their trainers look for."""
    import datasets

    made = collection(tmp_path, "image")
    for convention, columns in (
        ("sentence-transformers", ["anchor", "positive", "negative_1", "negative_2"]),
        ("colpali", ["query", "pos_target", "neg_target"]),
    ):
        write_convention(made, convention, tmp_path / convention)
        table = datasets.load_dataset(str(tmp_path / convention), split="train")
        assert table.column_names == columns
        assert table[3][columns[1]].getpixel((0, 0)) == (45, 210, 3)


@pytest.mark.parametrize(
    ("row", "convention"),
    [
        ({"query": "a", "image": "p0.png"}, "query-image"),
        ({"anchor": "a", "positive": "b"}, "sentence-transformers"),
        ({"sentence1": "a", "sentence2": "b", "label": 1}, "sentence-transformers"),
        ({"question": "a", "answer": "b"}, "sentence-transformers"),
        ({"query": "a", "pos_target": "b"}, "colpali"),
        ({"query_id": "1", "query": "a", "positive_passages": [{"docid": "d", "text": "b"}]}, "tevatron"),
        ({"query": "a", "pos": ["b"], "neg": ["c"]}, "flagembedding"),
        ({"query": "a", "pos": "b", "negs": ["c"]}, "triples"),
        ({"query": "a", "response": "b", "rejected_response": ["c"]}, "ms-swift"),
    ],
)
def test_a_convention_is_known_by_its_columns(tmp_path, row, convention):
    assert recognise(list(row)) == convention
    Image.new("RGB", (4, 4)).save(tmp_path / "p0.png")
    (example,) = read(lines(tmp_path / "t.jsonl", row)).train_on("train")
    assert example.query.text == "a" and (example.positive.body == "b" or example.positive.images)


def test_columns_of_no_convention_are_said_with_what_is_known(tmp_path):
    with pytest.raises(InputError, match=r"columns foo, bar: of no convention .*data\.format=.*colpali"):
        read(lines(tmp_path / "t.jsonl", {"foo": 1, "bar": 2}))
    with pytest.raises(InputError, match=r"t\.jsonl:1: pos_target \| x|t\.jsonl:1: .*no positive"):
        read(lines(tmp_path / "t.jsonl", {"query": "a", "bar": 2}), format="colpali")


def test_a_label_above_one_half_makes_a_pair_relevant_and_one_below_a_negative_of_its_anchor(tmp_path):
    rows = [("a", "good", 1), ("a", "bad", 0), ("b", "good", 0.9), ("c", "bad", 0.2)]
    made = read(lines(tmp_path / "t.jsonl", *({"sentence1": q, "sentence2": d, "score": s} for q, d, s in rows)))
    found = [(e.query.text, e.positive.text, tuple(n.text for n in e.negatives)) for e in made.train_on("train")]
    assert found == [("a", "good", ("bad",)), ("b", "good", ())]
    assert "1 queries with no relevant document" in made.notes
    with pytest.raises(InputError, match=r"t\.jsonl:1: score: 4 is not within 0 and 1: scale it"):
        read(lines(tmp_path / "t.jsonl", {"sentence1": "a", "sentence2": "b", "score": 4}))


def test_the_same_page_asked_for_twice_is_one_document_with_two_queries(tmp_path):
    made = collection(tmp_path, "image", negatives=0)
    qrels = {"train": {"q0": {"d0": 1}, "q1": {"d0": 1}, "q2": {"d2": 1}}}
    write_convention(Collection("x", made.documents, made.queries, qrels), "query-image", tmp_path / "out")
    back = read(tmp_path / "out")
    assert len(back.documents) == 16 and len(back.queries) == 3
    assert len({name for grades in back.judged("train").values() for name in grades}) == 2
    assert "1 documents seen again" in back.notes


def test_a_picture_beside_an_answer_is_what_the_query_asks_for_and_other_columns_are_said(tmp_path):
    """The columns of vidore/colpali_train_set: its answers are texts about the page, not what is searched."""
    Image.new("RGB", (4, 4)).save(tmp_path / "p.png")
    row = {"image": "p.png", "image_filename": "p", "query": "x", "answer": "forty", "source": "pdf"}
    made = read(lines(tmp_path / "t.jsonl", row))
    assert made.documents[0].images and not made.documents[0].body
    assert made.notes[0] == "train: read as query-image, without image_filename, answer, source"


def test_a_label_of_ms_swift_says_whether_its_answer_is_one(tmp_path):
    rows = [{"query": "a", "response": "good", "label": 1.0}, {"query": "a", "response": "bad", "label": 0.0}]
    (example,) = read(lines(tmp_path / "t.jsonl", *rows)).train_on("train")
    assert (example.positive.body, [n.body for n in example.negatives]) == ("good", ["bad"])


def test_a_text_that_asks_and_answers_is_no_answer_to_itself(tmp_path):
    made = read(lines(tmp_path / "t.jsonl", {"anchor": "a", "positive": "b"}, {"anchor": "b", "positive": "a"}))
    found = {made.queries.named(q).text: made.documents.named(d).text for q, d in made.itself.items()}
    assert found == {"a": "a", "b": "b"}


def test_what_a_convention_cannot_hold_is_counted(tmp_path):
    made = collection(tmp_path, "text", negatives=0)
    qrels = {"train": {"q0": {"d0": 2, "d1": 0}, "q1": {"d1": 1}}}
    made = Collection("x", made.documents, made.queries, qrels, top_ranked={"train": {"q0": ("d0",)}})
    assert write_convention(made, "triples", tmp_path / "out") == {
        "documents in no example LEFT OUT": 14,
        "queries without a relevant document LEFT OUT": 6,
        "grades other than 1 LEFT OUT": 2,
        "lists to rerank LEFT OUT": 1,
        "rows in train": 2,
    }
    for text, convention in (("logo.png", "triples"), ("an <image> tag", "ms-swift")):
        documents = Records.of([Document("d0", text)])
        one = Collection("x", documents, made.queries, {"train": {"q0": {"d0": 1}}})
        with pytest.raises(InputError, match=r"document 'd0': .* cannot hold"):
            write_convention(one, convention, tmp_path / convention)


def test_a_folder_whose_files_are_not_clear_is_refused(tmp_path):
    import datasets

    table, folder = datasets.Dataset.from_list([{"anchor": "a", "positive": "b"}]), tmp_path / "f"
    for place in (folder, tmp_path / "s"):
        place.mkdir()
    for number in (0, 1):
        table.to_parquet(folder / f"part-{number}.parquet")
    assert len(read(folder).train_on("train")) == 2  # numbers are no splits
    lines(folder / "notes.jsonl", {"a": 1})
    with pytest.raises(InputError, match=r"holds \.jsonl and \.parquet: name the file"):
        read(folder)
    table.to_parquet(tmp_path / "s/train-00000-of-00002.parquet")
    with pytest.raises(InputError, match=r"split 'train': shard 1 of 00002 is missing"):
        read(tmp_path / "s")
    (tmp_path / "test.json").write_text(json.dumps([{"anchor": "a", "positive": "b"}]))
    assert list(read(tmp_path / "test.json").qrels) == ["test"]


def test_a_linked_picture_stays_one_whatever_it_is_linked_to(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "blob", "PNG")
    (tmp_path / "p.png").symlink_to(tmp_path / "blob")
    made = read(lines(tmp_path / "t.jsonl", {"query": "a", "pos": "p.png", "negs": []}))
    write_convention(made, "triples", tmp_path / "out")
    assert read(tmp_path / "out").documents[0].images == (str(tmp_path / "p.png"),)


def test_a_page_without_a_query_stays_in_the_corpus(tmp_path):
    for name in "ab":
        Image.new("RGB", (4, 4), "red" if name == "a" else "blue").save(tmp_path / f"{name}.png")
    rows = [{"query": "x", "image": "a.png"}, {"query": None, "image": "b.png"}]
    made = read(lines(tmp_path / "t.jsonl", *rows))
    assert len(made.documents) == 2 and len(made.queries) == 1
    assert made.notes == ("train: read as query-image", "1 documents that nobody asked for")


@pytest.mark.parametrize("kind", ["parquet", "csv", "arrow", "jsonl"])
def test_local_files_of_every_kind_give_the_same_records(tmp_path, kind):
    import datasets

    rows = [{"anchor": f"a{n}", "positive": f"b{n}", "negative": f"c{n}"} for n in range(70)]
    made, folder = datasets.Dataset.from_list(rows), tmp_path / "data"
    folder.mkdir()
    match kind:
        case "parquet":
            made.to_parquet(folder / "train-00000-of-00001.parquet")
        case "csv":
            made.to_csv(folder / "train.csv")
        case "arrow":
            datasets.DatasetDict({"train": made}).save_to_disk(folder)
        case "jsonl":
            lines(folder / "train.jsonl", *rows)
    back = read(folder)
    assert [(e.query.text, e.positive.text, e.negatives[0].text) for e in back.train_on("train")] == [
        tuple(row.values()) for row in rows
    ]
    if kind == "parquet":
        assert len(read(folder / "train-00000-of-00001.parquet").documents) == 140


def test_parquet_is_mapped_once_and_anew_where_it_changed(tmp_path):
    import datasets

    def write(*texts):
        rows = [{"anchor": text, "positive": f"{text} too"} for text in texts]
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "train.parquet")

    for texts in (("a", "b"), ("a", "b"), ("c", "d", "e")):
        write(*texts)
        assert [q.text for q in read(tmp_path / "train.parquet").queries] == list(texts)
    datasets.Dataset.from_list([{"other": 1}]).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(InputError, match=r"split 'test': columns other: of no convention"):
        read(tmp_path)
    (tmp_path / "test.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(InputError, match="cannot be read as a table"):
        read(tmp_path)


def test_a_name_of_the_hub_is_loaded_by_datasets_with_its_configuration(tmp_path, monkeypatch):
    import datasets

    asked = []

    def load(name, config=None, **_):
        asked.append((name, config))
        if name == "nobody/nothing":
            raise ConnectionError("offline")
        return datasets.DatasetDict({"train": datasets.Dataset.from_list([{"anchor": "a", "positive": "b"}])})

    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.setattr("colmrl.data.reading._keeps_beir_files", lambda name: False)
    monkeypatch.setattr("colmrl.data.reading._keeps_corpus_tables", lambda name: False)
    assert len(read("some/pairs:en").documents) == 1 == len(read("some/pairs").documents)
    assert asked == [("some/pairs", "en"), ("some/pairs", None)]
    with pytest.raises(InputError, match=r"nobody/nothing: no such folder, and not to be had from the hub \(offline\)"):
        read("nobody/nothing")


def test_triples_with_hub_style_ids_are_read_from_a_local_copy(tmp_path):
    made = collection(tmp_path, "image")
    folder = tmp_path / "owner/pages"
    folder.mkdir(parents=True)
    write_convention(made, "colpali", folder)
    rows = [{"query": "x", "pos": "owner/pages/train/doc_3.png", "negs": ["owner/pages/train/doc_5.png"]}]
    file = lines(tmp_path / "t.jsonl", *rows)
    examples, _ = read_training(DataConfig(triples=str(file), root=str(tmp_path)))
    (example,) = examples
    pixel = [open_image(d.images[0]).getpixel((0, 0)) for d in (example.positive, *example.negatives)]
    assert pixel == [(45, 210, 3), (75, 180, 5)]
    for name, says in (
        ("owner/pages/train/doc_8.png", "no row 8: .* has 8, counted from 0"),
        ("owner/pages/dev/doc_0.png", "no split 'dev': .* has train"),
    ):
        lines(file, rows[0] | {"pos": name})
        with pytest.raises(InputError, match=rf"t\.jsonl:1: pos: .*{says}"):
            read_training(DataConfig(triples=str(file), root=str(tmp_path)))


def test_tevatrons_documents_by_id_come_from_its_corpus(tmp_path):
    folder = tmp_path / "t"
    folder.mkdir()
    lines(folder / "corpus.jsonl", {"docid": "d1", "title": "T", "text": "x"}, {"docid": "d2", "text": "y"})
    row = {"query_id": "q", "query_text": "ask", "positive_document_ids": ["d1"], "negative_document_ids": ["d2"]}
    lines(folder / "train.jsonl", row)
    (example,) = read(folder, format="tevatron").train_on("train")
    assert (example.positive.body, example.negatives[0].id) == ("T x", "d2")
    lines(folder / "train.jsonl", row | {"positive_document_ids": ["d9"]})
    with pytest.raises(InputError, match=r"train\.jsonl:1: .*unknown id 'd9'"):
        read(folder, format="tevatron")


def test_an_id_that_shows_two_things_is_said(tmp_path):
    row = {"query_id": "q", "query": "a", "positive_passages": [{"docid": "d", "text": "x"}]}
    for other, says in (
        ({"positive_passages": [{"docid": "d", "text": "y"}]}, r"t\.jsonl:2: id: 'd' shows something else"),
        ({"query": "b"}, r"t\.jsonl:2: id: 'q' shows something else"),
    ):
        with pytest.raises(InputError, match=says):
            read(lines(tmp_path / "t.jsonl", row, row | other))
    assert len(read(lines(tmp_path / "t.jsonl", row, row)).documents) == 1


def test_bad_rows_are_skipped_and_counted_where_that_is_asked_for(tmp_path):
    rows = [{"anchor": "a", "positive": "b"}, {"anchor": "", "positive": "b"}, {"anchor": "c"}]
    file = lines(tmp_path / "t.jsonl", *rows)
    with pytest.raises(InputError, match=r"t\.jsonl:2: anchor: missing or empty"):
        read(file)
    made = read(file, strict=False)
    assert len(made.queries) == 1 and "2 bad rows skipped" in made.notes


_CELLS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=5) | st.just("<image>"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "image", "title", "docid", "content", "bytes", "path"]), inner)
    ),
    max_leaves=8,
)
_COLUMNS = ["query", "image", "anchor", "positive", "negative", "sentence1", "sentence2", "label", "score"]
_COLUMNS += [
    "pos_target",
    "neg_target",
    "query_id",
    "positive_passages",
    "negative_passages",
    "query_text",
    "query_image",
]
_COLUMNS += ["positive_document_ids", "negative_document_ids", "pos", "neg", "negs", "messages", "positive_messages"]
_COLUMNS += ["negative_messages", "images", "positive_images", "negative_images", "response", "rejected_response"]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_no_row_whatsoever_gives_a_traceback(tmp_path, convention):
    parse = meaning(convention, tmp_path)

    @settings(deadline=None, max_examples=120)
    @given(st.dictionaries(st.sampled_from(_COLUMNS), _CELLS, max_size=6))
    def check(values):
        try:
            parse(Row(tmp_path / "t.jsonl", 7, values))
        except InputError as error:
            assert "t.jsonl:7: " in str(error)

    check()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.sampled_from(_COLUMNS), _CELLS, max_size=6), min_size=1, max_size=3))
def test_no_file_whatsoever_gives_a_traceback(tmp_path_factory, rows):
    file = lines(tmp_path_factory.mktemp("fuzz") / "t.jsonl", *rows)
    for convention in (None, *CONVENTIONS):
        try:
            open_tables.cache_clear()
            read_tables(str(file), convention, None)
        except InputError as error:
            assert "t.jsonl" in str(error)


def test_the_stamp_of_a_picture_in_a_table_changes_with_it(tmp_path):
    """What a store was encoded from is told by stamps: the same docid with another picture must not pass for it."""
    from colmrl.data.media import stamp

    made = []
    for size in (6, 60):
        for old in (tmp_path / "out").rglob("*.parquet"):
            old.unlink()
        Image.effect_noise((size, size), 50).convert("RGB").save(tmp_path / "p.png")
        one = Records.of([Document("d0", images=(str(tmp_path / "p.png"),))])
        asked = Records.of([Query("q0", "x")])
        write_convention(Collection("x", one, asked, {"train": {"q0": {"d0": 1}}}), "tevatron", tmp_path / "out")
        document = read(tmp_path / "out").documents[0]
        made.append((document.id, stamp(document.images[0])))
    assert made[0][0] == made[1][0] == "d0" and made[0][1] != made[1][1]
