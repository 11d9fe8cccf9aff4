import json

import numpy as np
import pytest
from made import mining, write_data, write_store

from colmrl.errors import InputError
from colmrl.mining import mine, read_report
from colmrl.mining.block import Block
from colmrl.mining.teacher import RunTeacher
from colmrl.reranking.opening import Opened

QUERIES, DOCUMENTS = 6, 20


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two models' stores of one data set, and the second's scores, q × d."""
    rng, folder = np.random.default_rng(3), tmp_path_factory.mktemp("made")
    answers = {q: [q, q + 6][: 1 + q % 2] for q in range(QUERIES)}
    data = write_data(folder / "data", QUERIES, [{"text": f"document {n}"} for n in range(DOCUMENTS)], answers)
    queries, documents = rng.normal(size=(2, QUERIES, 5)), rng.normal(size=(2, DOCUMENTS, 5))
    stores = [write_store(folder / f"store-{n}", data, queries[n], documents[n]) for n in range(2)]
    queries, documents = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (queries, documents))
    return stores, answers, queries[0] @ documents[0].T, queries[1] @ documents[1].T


def mined(world, tmp_path, teacher, name="t", *more):
    out = tmp_path / f"{name}.jsonl"
    given = json.dumps([{"teacher": teacher}])
    mine(mining("mine.k=20", "mine.negatives=20", f"mine.filters={given}", *more), world[0][0], out)
    return [json.loads(line) for line in out.open()], read_report(out)


def expected(world, passes):
    """(query, positive) → negatives in the first model's order that the second's scores let pass."""
    _, answers, own, taught = world
    return {
        (f"q{q}", f"d{positive}"): [
            f"d{d}" for d in np.argsort(-own[q]) if d not in names and passes(taught[q, d], taught[q, names].min())
        ]
        for q, names in answers.items()
        for positive in names
    }


@pytest.mark.parametrize(
    ("held", "passes"),
    [
        ({}, lambda score, answer: True),
        ({"relative_margin": 0.1}, lambda score, answer: score <= answer - 0.1 * abs(answer)),
        ({"absolute_margin": 0.2, "max_score": 0.1}, lambda score, answer: score <= min(answer - 0.2, 0.1)),
    ],
)
def test_a_store_judges_by_its_own_scores_which_the_triples_then_carry(world, tmp_path, held, passes):
    rows, report = mined(world, tmp_path, {"store": str(world[0][1]), **held})
    wanted, taught = expected(world, passes), world[3]
    assert {(row["query_id"], row["pos_id"]): row["neg_ids"] for row in rows} == wanted
    for row in rows:
        scores = taught[int(row["query_id"][1:])]
        named = [row["pos_id"], *row["neg_ids"]]
        assert [row["pos_score"], *row["neg_scores"]] == pytest.approx([scores[int(n[1:])] for n in named], abs=1e-6)
    assert report["scores"] == f"{world[0][1]} at single@5"
    assert [step["step"] for step in report["steps"]] == [
        "known answers", "teacher scores", *(f"teacher {name} {value:g}" for name, value in held.items())
    ]  # fmt: skip


class Knows:
    """A reranker that answers with given scores, and only of what it is shown."""

    name = "knows"

    def __init__(self, taught):
        self.taught, self.shown = taught, {}

    def score(self, query, documents):
        names = [document.id for document in documents]
        self.shown[query.id] = names
        return np.array([self.taught[int(query.id[1:]), int(name[1:])] for name in names], dtype=np.float32)


def test_a_reranker_reads_positives_and_candidates_together_in_a_drawn_order(world, tmp_path, monkeypatch):
    _, answers, own, taught = world
    knows = Knows(taught)
    monkeypatch.setattr("colmrl.reranking.opening.open_judge", lambda *_: Opened(knows, None, ""))
    rows, report = mined(world, tmp_path, {"reranker": "folder", "relative_margin": 0.1})
    wanted = expected(world, lambda score, answer: score <= answer - 0.1 * abs(answer))
    assert {(row["query_id"], row["pos_id"]): row["neg_ids"] for row in rows} == wanted
    for row in rows:
        scores = [taught[int(row["query_id"][1:]), int(n[1:])] for n in (row["pos_id"], *row["neg_ids"])]
        assert [row["pos_score"], *row["neg_scores"]] == pytest.approx(scores, abs=1e-6)
    for q, names in answers.items():  # every document once, the answers not in front
        assert sorted(knows.shown[f"q{q}"]) == sorted(f"d{d}" for d in range(DOCUMENTS))
        assert knows.shown[f"q{q}"] != [f"d{d}" for d in [*names, *(d for d in np.argsort(-own[q]) if d not in names)]]
    assert report["scores"] == "folder"


def write_run(path, taught, keep=lambda q, d: True):
    lines = [
        f"q{q} Q0 d{d} 0 {float(np.float32(taught[q, d]))!r} any\n"
        for q in range(QUERIES)
        for d in reversed(range(DOCUMENTS))
        if keep(q, d)
    ]
    path.write_text("".join(lines) + "elsewhere Q0 d1 0 0.5 any\n")
    return path


def test_a_run_file_says_the_same_as_the_store_that_it_was_made_from(world, tmp_path):
    run = write_run(tmp_path / "run.trec", world[3])
    ours, _ = mined(world, tmp_path, {"store": str(world[0][1]), "relative_margin": 0.1}, "a")
    theirs, report = mined(world, tmp_path, {"scores": str(run), "relative_margin": 0.1}, "b")
    assert [row["neg_ids"] for row in theirs] == [row["neg_ids"] for row in ours]
    for a, b in zip(theirs, ours, strict=True):
        assert [a["pos_score"], *a["neg_scores"]] == pytest.approx([b["pos_score"], *b["neg_scores"]], abs=1e-6)
    assert report["scores"] == str(run)


def test_a_run_file_says_nothing_of_places_where_less_was_found(tmp_path):
    """Of which the key could be another pair's: that of the first query and the second document."""
    (tmp_path / "run.trec").write_text("q0 Q0 d1 1 0.5 any\nq0 Q0 d0 2 0.25 any\n")
    asked = Block(
        query_ids=["q0"],
        positions=np.array([[1, 0, -1]]),
        scores=np.array([[0.9, 0.8, -np.inf]], np.float32),
        left=np.array([[True, True, False]]),
        positives=(np.array([0]), np.array([0])),
        positive_scores=np.array([0.8], np.float32),
        known=(np.array([0]), np.array([0])),
    )
    found = RunTeacher(tmp_path / "run.trec", ["q0"], ["d0", "d1", "d2"]).judge(asked)
    np.testing.assert_array_equal(found.judged, [[0.5, 0.25, np.nan]])
    assert found.judged_positives.tolist() == [0.25] and found.left.tolist() == [[True, True, False]]


def test_what_a_run_file_does_not_score_is_removed_and_counted(world, tmp_path):
    answers = world[1]
    run = write_run(tmp_path / "run.trec", world[3], lambda q, d: d % 3 == 0 or (q > 0 and d in answers[q]))
    rows, report = mined(world, tmp_path, {"scores": str(run)})
    assert all(int(name[1:]) % 3 == 0 for row in rows for name in row["neg_ids"])
    known, unscored = report["steps"]
    assert unscored["left"] == sum(1 for q in answers for d in range(0, DOCUMENTS, 3) if d not in answers[q])
    assert unscored["removed"] == known["left"] - unscored["left"]
    run = write_run(tmp_path / "other.trec", world[3], lambda q, d: d % 3 == 0 or (q not in (2, 3) and d in answers[q]))
    rows, _ = mined(world, tmp_path, {"scores": str(run), "absolute_margin": 0}, "other")
    by_pair = {(row["query_id"], row["pos_id"]): row for row in rows}
    assert not by_pair["q2", "d2"]["neg_ids"] and by_pair["q2", "d2"]["pos_score"] is None  # no answer to measure from
    # q3's lowest scored answer is d3 or d9, both multiples of 3
    assert by_pair["q3", "d9"]["pos_score"] == pytest.approx(world[3][3, 9], abs=1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("q0 Q0 d1 0 0.5 any\nq0 d2 0.5\n", r"run.trec:2: not `query-id Q0 doc-id rank score tag`"),
        ("q0 Q0 d1 0 high any\n", r"run.trec:1: not `query-id"),
        ("q9 Q0 d1 0 0.5 any\n", "none of its 1 lines"),
        ("q0 Q0 d1 0 0.5 any\nq0 Q0 d1 1 0.4 any\n", "'q0' and document 'd1' have two scores"),
        (None, "no such file"),
    ],
)
def test_a_wrong_run_file_is_said(world, tmp_path, text, says):
    run = tmp_path / "run.trec"
    if text is not None:
        run.write_text(text)
    with pytest.raises(InputError, match=says):
        mined(world, tmp_path, {"scores": str(run)})
    assert not (tmp_path / "t.jsonl").exists()


def test_a_teacher_of_other_data_is_refused(world, store, tmp_path):
    with pytest.raises(InputError, match="was encoded from other documents"):
        mined(world, tmp_path, {"store": str(store)})
