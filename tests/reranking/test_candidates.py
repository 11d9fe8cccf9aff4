from collections import Counter

import pytest

from colmrl.configure import load_config
from colmrl.data.reading import read_collection
from colmrl.data.records import Collection, Document, Query, Records
from colmrl.data.sequences import read_sequences
from colmrl.data.sequences_sample import write_sequences_sample
from colmrl.errors import InputError
from colmrl.reranking.candidates import from_run, from_store, ground_truth, open_candidates, shown
from colmrl.search import Plan, search
from colmrl.store import EmbeddingStore

QRELS = {"q0": {"d0": 1}, "q1": {"d1": 2, "d3": 1, "d4": 0}, "q2": {"d2": 0}}


def collection(texts, queries, qrels, **more):
    """d0, d1, … and q0, q1, …; one split, test."""
    documents = Records.of([Document(f"d{n}", text) for n, text in enumerate(texts)])
    asked = Records.of([Query(f"q{n}", text) for n, text in enumerate(queries)])
    return Collection("made", documents, asked, {"test": qrels}, **more)


@pytest.fixture
def made():
    return collection([f"text {n}" for n in range(12)], ["a", "b", "c", "d"], QRELS)


def run_file(folder, *lines):
    path = folder / "run.trec"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_a_run_file_is_read_by_its_scores_and_cut_ties_in_the_order_of_its_lines(made, tmp_path):
    lines = ["q1 Q0 d5 9 0.5 t", "q1 Q0 d3 1 0.7 t", "", "q0 Q0 d0 1 -1 t", "q1 Q0 d7 3 .5 t", "q1 Q0 d1 2 1e-3 t"]
    found = from_run(run_file(tmp_path, *lines), made, "test", 3)
    assert dict(found.of) == {"q0": ("d0",), "q1": ("d3", "d5", "d7")} and found.mode == "retrieval"
    assert found.scores == {"q0": (-1.0,), "q1": (0.7, 0.5, 0.5)}
    assert found.qrels == {"q0": QRELS["q0"], "q1": QRELS["q1"]}  # all of their judgements: q2 has no answer


def test_a_saved_run_reads_back_the_same(made, tmp_path):
    path = run_file(tmp_path, "q0 Q0 d3 1 0.30000000000000004 t", "q0 Q0 d0 1 0.1 t", "q1 Q0 d1 1 2 t")
    found = from_run(path, made, "test", 10)
    again = from_run(found.save_run(tmp_path / "again.trec"), made, "test", 10)
    assert (again.of, again.scores) == (found.of, found.scores)
    drawn = ground_truth(made, "test", 3, 0)
    assert from_run(drawn.save_run(tmp_path / "drawn.trec"), made, "test", 10).of == drawn.of


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["q0 Q0 d0 1 1 t", "q9 Q0 d0 1 1 t"], r"run\.trec:2: query 'q9' is not in made"),
        (["q0 Q0 d99 1 1 t"], r"run\.trec:1: document 'd99' is not in made"),
        (["q0 Q0 d0 1 1 t", "q1 Q0 d0 1 1 t", "q0 Q0 d0 2 .5 t"], r"run\.trec:3: query 'q0' and document 'd0' stand"),
        (["q0 Q0 d0 1 1 t"], r"1 of the 2 judged queries of split 'test' have no line \('q1'\)"),
        (["q0 d0 1"], r"run\.trec:1: not `query-id Q0 doc-id rank score tag`"),
        (["q0 Q0 d0 1 nan t"], r"run\.trec:1: score: nan is not finite"),
    ],
)
def test_a_wrong_run_file_is_said_with_its_line(made, tmp_path, lines, says):
    with pytest.raises(InputError, match=says):
        from_run(run_file(tmp_path, *lines), made, "test", 5)


def test_queries_that_the_split_does_not_judge_are_left_out(made, tmp_path):
    lines = ["q3 Q0 d0 1 1 t", "q0 Q0 d0 1 1 t", "q1 Q0 d0 1 1 t"]
    assert list(from_run(run_file(tmp_path, *lines), made, "test", 5).of) == ["q0", "q1"]
    with pytest.raises(InputError, match="no such file"):
        from_run(tmp_path / "none.trec", made, "test", 5)


def test_a_store_gives_what_search_finds(store, sample):
    data = read_collection(str(sample / "train"), load_config(None).data)
    found = from_store(store, data, "train", "single@32/20+multi@16", 7, gpu=False)
    queries, documents = EmbeddingStore(store / "queries"), EmbeddingStore(store / "documents")
    run = search(queries, documents, Plan.parse("single@32/20+multi@16"), 7, only=set(data.qrels["train"])).run()
    assert {query: set(names) for query, names in found.of.items()} == {query: set(of) for query, of in run.items()}
    for query, scores in (found.scores or {}).items():
        assert list(scores) == sorted(run[query].values(), reverse=True)


def test_ground_truth_has_the_answers_and_as_many_others_drawn_by_seed_and_query_alone(made):
    found, again, other = (ground_truth(made, "test", 4, seed) for seed in (1, 1, 2))
    assert found == again and found.of != other.of and found.mode == "ground_truth"
    for query, right in (("q0", {"d0"}), ("q1", {"d1", "d3"})):
        assert right <= set(found.of[query]) and len(set(found.of[query])) == len(right) + 4
    part = collection([f"text {n}" for n in range(12)], ["a", "b"], {"q1": QRELS["q1"]})
    assert ground_truth(part, "test", 4, 1).of["q1"] == found.of["q1"]
    with pytest.raises(InputError, match=r"rerank\.sampled: 11: query 'q1' has only 10 documents"):
        ground_truth(made, "test", 11, 0)
    assert set(ground_truth(made, "test", 10, 0).of["q1"]) == set(made.documents.ids)


def test_where_the_answer_stands_and_who_stands_beside_it_are_evenly_drawn():
    many = collection([f"t{n}" for n in range(40)], ["a"] * 1, {"q0": {"d7": 1}})
    places, others = Counter(), Counter()
    for seed in range(2000):
        of = ground_truth(many, "test", 3, seed).of["q0"]
        places[of.index("d7")] += 1
        others.update(of)
    assert len(places) == 4 and min(places.values()) > 430  # 500 ± 3.5 standard deviations
    assert len(others) == 40 and all(95 < others[f"d{n}"] < 215 for n in range(40) if n != 7)  # 153.8 ± 5


def test_what_a_user_had_before_is_no_negative(tmp_path):
    read = read_sequences(write_sequences_sample(tmp_path / "s", users=20, items=20))
    found = ground_truth(read, "test", 8, 0)
    for query, names in found.of.items():
        history = set(read.queries.named(query).meta["history"])
        assert not history & set(names) and len(names) == 9 and sum(n in read.qrels["test"][query] for n in names) == 1


def test_shown_lists_keep_their_order_and_need_an_answer(made):
    lists = {"q0": ("d3", "d0"), "q2": ("d2",), "q1": ("d4", "d1", "d0")}
    with_lists = collection([f"text {n}" for n in range(5)], ["a", "b", "c"], QRELS, top_ranked={"test": lists})
    found = shown(with_lists, "test")
    assert dict(found.of) == {"q0": ("d3", "d0"), "q1": ("d4", "d1", "d0")} and found.scores is None
    with pytest.raises(InputError, match="has no lists that were shown"):
        shown(made, "test")


def test_the_settings_choose_and_contradictions_are_said(made, tmp_path):
    path = run_file(tmp_path, "q0 Q0 d0 1 1 t", "q1 Q0 d0 1 1 t")

    def opened(*overrides, of=made):
        return open_candidates(load_config(None, overrides), of, "test")

    assert opened("rerank.sampled=2").mode == "ground_truth" and opened(f"rerank.run={path}").mode == "retrieval"
    with_lists = collection(["a"] * 5, ["a", "b", "c"], QRELS, top_ranked={"test": {"q0": ("d0", "d1")}})
    assert opened(of=with_lists).mode == "shown"
    assert opened(f"rerank.run={path}", of=with_lists).mode == "retrieval"
    with pytest.raises(InputError, match=r"rerank\.run: is of rerank\.mode=retrieval, not shown"):
        opened(f"rerank.run={path}", "rerank.mode=shown")
    with pytest.raises(InputError, match="neither given"):
        opened("rerank.mode=retrieval")
    with pytest.raises(InputError, match="both given"):
        opened(f"rerank.run={path}", "rerank.store=x")
    assert len(opened("rerank.sampled=2", "rerank.queries=1")) == 1


def test_a_sample_of_queries_keeps_their_order_and_lists(made):
    many = collection(["t"] * 30, [f"a{n}" for n in range(30)], {f"q{n}": {f"d{n}": 1} for n in range(30)})
    whole = ground_truth(many, "test", 3, 0)
    part = whole.drawn(7, 5)
    assert len(part) == 7 == len(part.qrels) and part == whole.drawn(7, 5) != whole.drawn(7, 6)
    assert list(part.of) == [query for query in whole.of if query in part.of]
    assert all(part.of[query] == whole.of[query] for query in part.of)
    assert whole.drawn(30, 0) is whole
