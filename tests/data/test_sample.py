import hashlib
import json
from pathlib import Path

import pytest

from colmrl.data.beir import read_corpus, read_qrels, read_queries
from colmrl.data.sample import PLACES, write_sample
from colmrl.errors import InputError


def read(folder, split):
    queries, documents = read_queries(folder), read_corpus(folder)
    return queries, documents, read_qrels(folder, split, {q.id for q in queries}, {d.id for d in documents})


def true_of(caption, document):
    """Read the caption's words again and look them up in what was drawn."""
    drawn = {place: tuple(pair) for place, pair in zip(PLACES, document.meta["objects"], strict=True)}
    parts = [part.split(" ", 2) for part in caption.split(" and ")]
    return all(drawn[place] == (colour, shape) for colour, shape, place in parts)


def test_captions_are_judged_as_they_read_and_test_answers_are_unique(sample):
    for split in ("train", "test"):
        queries, documents, qrels = read(sample / split, split)
        for query in queries:
            answers = {d.id for d in documents if true_of(query.text, d)}
            assert answers == set(qrels[query.id])
            assert split == "train" or len(answers) == 1


def test_train_and_test_share_no_family_picture_or_caption(sample):
    seen = {}
    for split in ("train", "test"):
        queries, documents, _ = read(sample / split, split)
        objects = [[tuple(pair) for pair in d.meta["objects"]] for d in documents]
        seen[split] = (
            {(frozenset(c for c, _ in o), tuple(s for _, s in o)) for o in objects},
            {hashlib.sha256(Path(d.images[0]).read_bytes()).hexdigest() for d in documents},
            {frozenset(query.text.split(" and ")) for query in queries},
        )
        assert len(seen[split][1]) == len(documents)
    for mine, theirs in zip(seen["train"], seen["test"], strict=True):
        assert not mine & theirs


def test_a_family_differs_only_in_which_shape_has_which_colour(sample):
    families = {}
    for document in read_corpus(sample / "train"):
        families.setdefault(document.meta["family"], []).append(document.meta["objects"])
    for members in families.values():
        assert len(members) == 8 and len({json.dumps(m) for m in members}) == 8
        assert len({tuple(shape for _, shape in m) for m in members}) == 1
        assert len({frozenset(colour for colour, _ in m) for m in members}) == 1


def test_a_seed_gives_the_same_bytes_and_nothing_is_overwritten(tmp_path):
    def digest(folder):
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        return [(str(p.relative_to(folder)), p.read_bytes()) for p in files]

    first = write_sample(tmp_path / "a", 3, 1, 1)
    assert digest(first) == digest(write_sample(tmp_path / "b", 3, 1, 1))
    assert digest(first) != digest(write_sample(tmp_path / "c", 4, 1, 1))
    with pytest.raises(InputError, match="exists and is not empty"):
        write_sample(tmp_path / "a", 3, 1, 1)
