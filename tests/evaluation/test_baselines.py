import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colmrl.data.records import Collection, Document, Query, Records
from colmrl.data.sequences import read_sequences
from colmrl.data.sequences_sample import write_sequences_sample
from colmrl.errors import InputError
from colmrl.evaluation.baselines import (
    Bm25,
    bm25_on_history,
    bm25_orders,
    by_score,
    markov,
    popularity,
    random_orders,
    words,
)
from colmrl.reranking.candidates import Candidates

TEXTS = ["red ring red", "blue ring", "a blue star star star", "", "green square beside a blue square"]


def by_formula(texts, query):
    """Lucene's BM25, k1 = 1.2, b = 0.75, straight from the formula."""
    split = [text.split() for text in texts]
    mean = sum(map(len, split)) / len(split)
    scores = []
    for of in split:
        total = 0.0
        for word in query.split():
            n = sum(word in other for other in split)
            idf = math.log(1 + (len(split) - n + 0.5) / (n + 0.5))
            tf = of.count(word)
            total += idf * tf / (tf + 1.2 * (0.25 + 0.75 * len(of) / mean)) if tf else 0
        scores.append(total)
    return scores


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=7), min_size=1, max_size=6), st.text("abcdefg ", max_size=9)
)
def test_bm25_is_lucenes_formula(texts, query):
    texts = [" ".join(text) for text in texts]
    query = " ".join(query.replace(" ", ""))
    if any(texts):
        np.testing.assert_allclose(Bm25(texts).scores(query), by_formula(texts, query), atol=1e-12)


def test_bm25_by_hand():
    """One of two texts of one and three words has the word: idf = ln 2, length norm 1.2 (0.25 + 0.75 / 2)."""
    assert Bm25(["ring", "a b c"]).scores("ring").tolist() == [pytest.approx(math.log(2) / (1 + 1.2 * 0.625)), 0]


def test_words_are_lower_case_and_chinese_is_read_in_pairs():
    assert words("Red RING, it's 2x!") == ["red", "ring", "it", "s", "2x"]
    assert words("红色圆环 ok 蓝A") == ["红色", "色圆", "圆环", "ok", "蓝", "a"]


def test_lists_are_ordered_by_bm25_over_all_candidates_ties_as_they_came():
    documents = Records.of([Document(f"d{n}", text) for n, text in enumerate(TEXTS)])
    queries = Records.of([Query("q0", "blue star"), Query("q1", "nothing of it")])
    of = {"q0": ("d0", "d1", "d2"), "q1": ("d4", "d1")}
    qrels = {"q0": {"d1": 1}, "q1": {"d1": 1}}
    found = bm25_orders(Candidates("shown", "s", of, None, qrels), Collection("c", documents, queries, {"test": qrels}))
    scores = by_formula([TEXTS[n] for n in (0, 1, 2, 4)], "blue star")  # what is a candidate of no query counts nowhere
    assert scores[2] > scores[1] > scores[0] == 0
    assert found == {"q0": ("d2", "d1", "d0"), "q1": ("d4", "d1")}
    pictures = Records.of([Document(f"d{n}", images=("p.png",)) for n in range(5)])
    assert bm25_orders(Candidates("shown", "s", of, None, qrels), Collection("c", pictures, queries, {})) is None


def test_random_order_is_drawn_by_seed_and_query_and_keeps_every_candidate():
    names = tuple(f"d{n}" for n in range(6))
    candidates = Candidates("shown", "s", {f"q{n}": names for n in range(300)}, None, {})
    orders = random_orders(candidates, 3)
    assert orders == random_orders(candidates, 3) != random_orders(candidates, 4)
    assert all(set(order) == set(names) for order in orders.values())
    first = Counter(order[0] for order in orders.values())
    assert len(first) == 6 and min(first.values()) > 25  # 50 ± 4 standard deviations


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sequences") / "s"
    write_sequences_sample(folder, 1, users=40, items=16)
    lines = (folder / "user_sequence.txt").read_text().splitlines()
    lines += ["two item-0001 item-0002", "one item-0003", "three item-0004 item-0005 item-0006"]
    (folder / "user_sequence.txt").write_text("".join(f"{line}\n" for line in lines))
    return read_sequences(folder), [line.split()[1:] for line in lines]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_popularity_and_markov_are_those_of_the_raw_file(read, split):
    collection, raw = read
    learnt = [items[:-2] if len(items) > 2 else items if len(items) == 2 else [] for items in raw]
    order = list(dict.fromkeys(item for items in sorted(learnt, key=lambda items: len(items) == 2) for item in items))
    count = {item: sum(items.count(item) for items in learnt) for item in order}
    popular = sorted(order, key=lambda item: -count[item])
    assert set(popularity(collection, split, 5).of.values()) == {tuple(popular[:5])}
    found = markov(collection, split, 6)
    for query, names in found.of.items():
        last = collection.queries.named(query).meta["history"][-1]
        pairs = [(a, b) for items in learnt for a, b in itertools.pairwise(items)]
        after = Counter(b for a, b in pairs if a == last)
        best = [item for item, _ in after.most_common()]
        assert names == tuple([*best, *(item for item in popular if item not in best)][:6])
    assert found.qrels == collection.qrels[split] and found.mode == "retrieval"


def test_bm25_on_history_is_brute_force_without_the_history(read):
    collection, _ = read
    bodies = [document.body.lower() for document in collection.documents]
    assert all(" ".join(words(body)) == body.replace(",", "").replace(".", "") for body in bodies[:3])
    for query, names in list(bm25_on_history(collection, "test", 5).of.items())[::7]:
        asked = collection.queries.named(query)
        scores = by_formula([" ".join(words(body)) for body in bodies], " ".join(words(asked.text.partition(":")[2])))
        left = [i for i, name in enumerate(collection.documents.ids) if name not in asked.meta["history"]]
        best = sorted(left, key=lambda i: -scores[i])[:5]
        got = [scores[collection.documents.position[name]] for name in names]
        assert got == pytest.approx([scores[i] for i in best]) and not set(names) & set(asked.meta["history"])


def test_asked_for_more_items_than_there_are_the_history_stays_left_out(read):
    collection, _ = read
    for query, names in bm25_on_history(collection, "test", 100).of.items():
        assert set(names) == set(collection.documents.ids) - set(collection.queries.named(query).meta["history"])


def test_other_data_have_no_sequences():
    documents, queries = Records.of([Document("d0", "a")]), Records.of([Query("q0", "a")])
    with pytest.raises(InputError, match="not sequences"):
        popularity(Collection("c", documents, queries, {"test": {"q0": {"d0": 1}}}), "test", 3)


def test_equal_scores_keep_their_order():
    assert by_score(("a", "b", "c", "d"), (1.0, 2.0, 1.0, 2.0)) == ("b", "d", "a", "c")
