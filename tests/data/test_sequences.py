import itertools
import json
import logging
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from colmrl.data.records import Document
from colmrl.data.sequences import INSTRUCTION, read_sequences
from colmrl.data.sequences_sample import write_sequences_sample
from colmrl.errors import InputError

FORMS = ("text", "caption", "semantic_summary", "semantic_summary_small")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "item_short_text.txt").write_text("".join(f"i{n} item number {n}\n" for n in range(6)))
    (tmp_path / "user_sequence.txt").write_text("u1 i0 i1 i2 i3 i1\nu2\ti2  i3 i4 \r\n\nu3 i3 i4\nu4 i0\n")
    return tmp_path


@pytest.fixture(scope="session")
def ring(tmp_path_factory):
    return write_sequences_sample(tmp_path_factory.mktemp("sequences") / "s", 1, users=60, items=16)


def full(folder):
    """item_meta.jsonl with every form, in place of the short texts."""
    Image.new("RGB", (8, 8)).save(folder / "p.png")
    rows = [{"item": f"i{n}", "image_path": "p.png", **{form: f"{form}\nof {n}" for form in FORMS}} for n in range(6)]
    (folder / "item_meta.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def rewrite(folder, rows):
    (folder / "item_meta.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def by_hand(folder, history):
    """Leave one out, the slow way: split → query id → (history, target)."""
    out = {"train": {}, "valid": {}, "test": {}}
    for line in (folder / "user_sequence.txt").read_text().splitlines():
        if line.strip():
            user, *items = line.split()
            for position in range(1, len(items)):
                split = "train"
                if len(items) > 2 and position >= len(items) - 2:
                    split = "test" if position == len(items) - 1 else "valid"
                out[split][f"{user}/{position}"] = (items[:position][-history:], items[position])
    return out


@pytest.mark.parametrize("history", [1, 2, 20])
def test_queries_and_judgements_are_those_of_leaving_one_out_by_hand(folder, ring, history):
    for where, shown in ((folder, lambda item: f"item number {item[1:]}"), (ring, None)):
        read = read_sequences(where, history=history)
        if shown is None:
            texts = {row["item"]: row["text"] for row in map(json.loads, (where / "item_meta.jsonl").open())}
            shown = texts.__getitem__
        for split, expected in by_hand(where, history).items():
            assert read.qrels[split] == {query: {target: 1} for query, (_, target) in expected.items()}
            for query, (before, _) in expected.items():
                assert read.queries.named(query).text == "\n".join([INSTRUCTION, *map(shown, before[::-1])])
        assert len(read.queries) == sum(map(len, read.qrels.values()))


def test_short_users_are_trained_on_where_that_is_possible_and_counted(folder):
    read = read_sequences(folder)
    assert "u3/1" in read.qrels["train"] and not any(query.startswith("u4/") for query in read.queries.ids)
    assert read.notes == (
        "4 users, 6 items, 11 interactions",
        "1 items that no user has stay in the catalogue",
        "2 users with fewer than 3 items: no test or valid query; 1 give a train query",
    )
    assert list(read.documents.ids) == [f"i{n}" for n in range(6)]
    assert [(e.query.id, e.positive.id) for e in read.train_on("train")] == [
        ("u1/1", "i1"),
        ("u1/2", "i2"),
        ("u3/1", "i4"),
    ]


def test_an_item_without_text_is_shown_by_its_id_and_counted(folder):
    (folder / "item_short_text.txt").open("a").write("i9 \n")
    read = read_sequences(folder)
    assert read.documents.named("i9").text == "i9" and "1 items without text are shown by their ids: i9" in read.notes


@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_text_is_what_documents_and_histories_show(folder, form):
    full(folder)
    read = read_sequences(folder, item_form=form)
    assert read.documents[3].text == f"{form}\nof 3" and not read.documents[3].images
    query = read.queries.named("u2/2")
    assert query.text == f"{INSTRUCTION}\n{form} of 3\n{form} of 2" and not query.images
    assert query.meta == {"user": "u2", "history": ["i2", "i3"]}
    assert read.documents[0].meta == {form: f"{form}\nof 0" for form in FORMS} | {"raw_image": str(folder / "p.png")}


def test_raw_images_are_shown_alone_in_documents_and_histories(folder):
    full(folder)
    read = read_sequences(folder, item_form="raw_image", history=2)
    picture = str(folder / "p.png")
    assert read.documents[1] == Document("i1", images=(picture,), meta=read.documents[1].meta)
    query = read.queries.named("u1/4")
    assert query.images == (picture, picture) and query.text == INSTRUCTION


def test_items_without_the_form_are_an_error_or_leave_the_sequences(folder, caplog):
    rows = full(folder)
    rows[1]["caption"] = None
    rewrite(folder, rows)
    assert read_sequences(folder).documents.named("i1").text
    with pytest.raises(InputError, match=r"item_meta\.jsonl:2: caption: item 'i1' has none"):
        read_sequences(folder, item_form="caption")
    with caplog.at_level(logging.WARNING):
        read = read_sequences(folder, strict=False, item_form="caption")
    assert "item_meta.jsonl:2: caption" in caplog.text
    assert (
        "1 items without caption were left out; 2 interactions with them were taken out of the sequences" in read.notes
    )
    assert "i1" not in read.documents.position
    assert read.qrels["test"] == {"u1/2": {"i3": 1}, "u2/2": {"i4": 1}}
    rewrite(folder, [row | {"image_path": "no.png"} for row in rows[:1]] + rows[1:])
    with pytest.raises(InputError, match=r"item_meta\.jsonl:1: image_path: no such file"):
        read_sequences(folder)
    read = read_sequences(folder, strict=False)
    assert len(read.documents) == 6 and "1 pictures that item_meta.jsonl names are not there" in read.notes
    assert len(read_sequences(folder, strict=False, item_form="raw_image").documents) == 5


@pytest.mark.parametrize(
    ("file", "line", "says"),
    [
        ("user_sequence.txt", b"u1 i0 i1\n", r"user_sequence\.txt:6: user: 'u1' stands on an earlier line"),
        ("user_sequence.txt", b"u9 i0 i9\n", r"user_sequence\.txt:6: items: unknown item 'i9'"),
        ("user_sequence.txt", b"u9 \n", r"user_sequence\.txt:6: items: user 'u9' has none"),
        ("user_sequence.txt", b"u\xff i0\n", r"user_sequence\.txt:6: line: not UTF-8"),
        ("item_short_text.txt", b"i0 again\n", r"item_short_text\.txt:7: item: 'i0' stands on an earlier line"),
        ("item_short_text.txt", b"i9 \xff\n", r"item_short_text\.txt:7: line: not UTF-8"),
    ],
)
def test_a_bad_line_is_said_with_file_line_and_field(folder, file, line, says):
    before = read_sequences(folder)
    (folder / file).write_bytes((folder / file).read_bytes() + line)
    with pytest.raises(InputError, match=says):
        read_sequences(folder)
    after = read_sequences(folder, strict=False)
    assert after.qrels == before.qrels and after.documents.ids == before.documents.ids


def test_an_item_that_no_line_describes_is_counted_out_of_the_sequences(folder):
    (folder / "user_sequence.txt").write_text("u1 i0 i9 i1 i2\n")
    read = read_sequences(folder, strict=False)
    assert read.qrels == {split: {f"u1/{n}": {f"i{n}": 1}} for split, n in (("valid", 1), ("test", 2))}
    assert "1 interactions with items that no line describes were taken out" in read.notes


def test_what_is_not_there_is_said(folder, tmp_path_factory):
    for wanted, says in (
        ({"item_form": "picture"}, "item_form: 'picture': unknown: choose from text, raw_image"),
        ({"item_form": "caption"}, r"item_form: caption: .* has item_short_text\.txt alone"),
        ({"history": 0}, "history: 0: must be at least 1"),
    ):
        with pytest.raises(InputError, match=says):
            read_sequences(folder, **wanted)
    with pytest.raises(InputError, match=r"no user_sequence\.txt"):
        read_sequences(tmp_path_factory.mktemp("empty"))
    (folder / "user_sequence.txt").write_text("u1 i0\n")
    with pytest.raises(InputError, match="no user has two items"):
        read_sequences(folder)
    (folder / "user_sequence.txt").write_text("\n")
    with pytest.raises(InputError, match="no users"):
        read_sequences(folder)
    (folder / "item_short_text.txt").write_text("")
    with pytest.raises(InputError, match="no item has the form 'text'"):
        read_sequences(folder)
    (folder / "item_short_text.txt").unlink()
    with pytest.raises(InputError, match=r"neither item_meta\.jsonl nor"):
        read_sequences(folder)


def test_the_samples_next_item_follows_from_the_one_before_and_from_what_it_shows(ring):
    steps, shows = Counter(), {d.id: d.text.split(" and ") for d in read_sequences(ring).documents}
    lines = [line.split()[1:] for line in (ring / "user_sequence.txt").read_text().splitlines()]
    for items in lines:
        assert 5 <= len(items) <= 12 and len(set(items)) == len(items)
        steps.update(shows[a][3] == shows[b][0] for a, b in itertools.pairwise(items))
    assert 0.7 < steps[True] / steps.total() < 0.95
    assert len({tuple(v) for v in shows.values()}) == 16


def test_a_seed_gives_the_same_sample_bytes_and_every_form(ring, tmp_path):
    def digest(folder):
        return [(str(p.relative_to(folder)), p.read_bytes()) for p in sorted(folder.rglob("*")) if p.is_file()]

    assert digest(ring) == digest(write_sequences_sample(tmp_path / "a", 1, users=60, items=16))
    assert digest(ring) != digest(write_sequences_sample(tmp_path / "b", 2, users=60, items=16))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]
    for form in (*FORMS, "raw_image"):
        assert len(read_sequences(ring, item_form=form).documents) == 16
    with pytest.raises(InputError, match="exists and is not empty"):
        write_sequences_sample(ring)
    with pytest.raises(InputError, match="--items 3: too few"):
        write_sequences_sample(tmp_path / "c", items=3)


@settings(deadline=None, max_examples=80)
@given(st.binary(max_size=40), st.sampled_from(["user_sequence.txt", "item_short_text.txt", "item_meta.jsonl"]))
def test_no_line_whatsoever_gives_a_traceback(tmp_path_factory, line, file):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "item_short_text.txt").write_text("i0 a\ni1 b\n")
    (folder / "user_sequence.txt").write_text("u i0 i1\n")
    there = (folder / file).read_bytes() if (folder / file).exists() else b'{"item": "i0", "text": "a"}\n'
    (folder / file).write_bytes(there + line)
    try:
        read_sequences(folder)
    except InputError as error:
        assert str(folder) in str(error)
