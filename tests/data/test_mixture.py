"""Several data sets under one index: what each brings, equal ids told apart, and shares."""

import json
from dataclasses import replace

import pytest

from colmrl.config import DataConfig, SourceConfig
from colmrl.data.mixture import Mixture
from colmrl.data.reading import read_training
from colmrl.data.records import Document, Examples, Query, Records, Triple
from colmrl.errors import InputError


def beir(folder, said, queries=3, split="train"):
    (folder / "qrels").mkdir(parents=True)
    for name, kind in (("corpus", "d"), ("queries", "q")):
        rows = [{"_id": f"{kind}{n}", "text": f"{said} {kind} {n}"} for n in range(queries + 2)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"qrels/{split}.tsv").write_text("".join(f"q{n}\td{n}\t1\n" for n in range(queries)))
    return str(folder)


def mined(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def sources(tmp_path):
    """A BEIR folder, another with the same ids and mined triples, and triples that stand alone."""
    row = {"query": "q", "pos": "p", "negs": ["n"], "query_id": "q1", "pos_id": "d1", "neg_ids": ["d0", "d3"]}
    triples = mined(tmp_path / "mined.jsonl", row | {"pos_score": 2, "neg_scores": [1, 0.5]})
    alone = mined(tmp_path / "alone.jsonl", *({"query": f"q {n}", "pos": "p", "negs": ["n"]} for n in range(2)))
    return (
        SourceConfig(path=beir(tmp_path / "a", "one"), weight=1),
        SourceConfig(path=beir(tmp_path / "b", "two", split="dev"), split="dev", triples=triples, weight=2),
        SourceConfig(triples=alone, weight=1),
    )


def test_every_source_is_read_as_it_says(sources):
    found, answers = read_training(DataConfig(path="not read", sources=sources))
    assert found.sizes == [3, 1, 2] and len(found) == 6 and found.weights == [1, 2, 1]
    assert [e.query.text for e in found] == ["one q 0", "one q 1", "one q 2", "two q 1", "q 0", "q 1"]
    assert [n.text for n in found[3].negatives] == ["two d 0", "two d 3"] and found[3].scores == (2, 1, 0.5)
    assert [found.negatives_of(i) for i in range(6)] == [0, 0, 0, 2, 1, 1] and found.most_negatives == 2
    assert found.scored and not read_training(DataConfig(sources=sources[:1]))[0].scored
    for index in (-1, 6):
        with pytest.raises(IndexError):
            found[index]
    assert len(answers) == 3 + 3 + 2


def test_equal_ids_of_two_sources_are_two(sources):
    found, answers = read_training(DataConfig(sources=sources))
    assert found[1].query.id == "0:q1" and found[3].query.id == "1:q1"
    assert found[3].positive.id == "1:d1" and [n.id for n in found[3].negatives] == ["1:d0", "1:d3"]
    assert answers["0:q1"] == {"0:d1"} and answers["1:q1"] == {"1:d1"} and "q1" not in answers
    assert all(example.positive.id in answers[example.query.id] for example in found)


def test_one_data_set_keeps_its_ids(sources):
    for data in (DataConfig(path=sources[0].path), DataConfig(sources=(replace(sources[0], weight=None),))):
        found, answers = read_training(data)
        assert [e.query.id for e in found] == ["q0", "q1", "q2"] and answers["q2"] == {"d2"}
        assert found.sizes == [3] and found.weights is None


def test_what_is_wrong_with_a_source_is_said_with_its_number(sources):
    for bad, says in (
        (SourceConfig(path="nowhere"), r"data\.sources\[1\]: nowhere: no such data set"),
        (SourceConfig(path=sources[0].path, split="dev"), r"data\.sources\[1\]: .*no split 'dev'"),
        (SourceConfig(), r"data\.sources\[1\]: data\.path: not given"),
    ):
        with pytest.raises(InputError, match=says):
            read_training(DataConfig(sources=(sources[0], bad)))


def test_scores_survive_as_triples_and_cost_nothing_where_there_are_none():
    queries, documents = Records.of([Query("q")]), Records.of([Document(n) for n in "abc"])
    bare = [Triple("q", "a", ("b", "c"))] * 3
    assert not Examples(queries, documents, bare)._negative_scores
    for triples in (
        bare,
        [*bare, Triple("q", "a", ("b", "c"), 1.0, (0.5, -2.0)), Triple("q", "b", (), 3.0), *bare],
        [Triple("q", "a", ("b",), None, (0.5,)), Triple("q", "b", ("c",), 0.0, (0.0,))],
    ):
        examples = Examples(queries, documents, triples)
        assert list(examples.triples()) == triples
        assert examples.with_negatives(0, []).negatives == ()
    assert Mixture([examples]).with_negatives(1, []).scores == (0.0,)
