"""The same triples as sentence-transformers' `mine_hard_negatives`, of the same vectors."""

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from made import mining, write_data, write_store
from sentence_transformers.util import dot_score, mine_hard_negatives, pairwise_dot_score

from colmrl.mining.report import Tally
from colmrl.mining.run import mine_triples, open_source, open_steps

QUERIES, DOCUMENTS = 24, 50


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Vectors near a few centres, so that scores of both signs are near each other; one to three answers a query."""
    rng, folder = np.random.default_rng(5), tmp_path_factory.mktemp("made")
    centres = rng.normal(size=(4, 8))
    documents = centres[rng.integers(4, size=DOCUMENTS)] + 0.6 * rng.normal(size=(DOCUMENTS, 8))
    queries = centres[rng.integers(4, size=QUERIES)] + 0.6 * rng.normal(size=(QUERIES, 8))
    documents, queries = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (documents, queries))
    near = np.argsort(-queries @ documents.T, axis=1)
    answers = {q: rng.choice(near[q, :20], size=rng.integers(1, 4), replace=False).tolist() for q in range(QUERIES)}
    answers[3] = near[3, -2:].tolist()  # answers that score below 0
    data = write_data(folder / "data", QUERIES, [{"text": f"document {n}"} for n in range(DOCUMENTS)], answers)
    return queries, documents, answers, write_store(folder / "store", data, queries, documents)


def theirs(world, n, options):
    queries, documents, answers, _ = world
    rows = [(f"q{query}", f"d{name}") for query, names in answers.items() for name in names]
    of = {"q": queries.astype(np.float32), "d": documents.astype(np.float32)}

    def encode(texts, **_):
        return np.stack([of[text[0]][int(text[1:])] for text in texts])

    model = SimpleNamespace(device="cpu", encode_query=encode, encode_document=encode)
    model.similarity, model.similarity_pairwise = dot_score, pairwise_dot_score
    mined = mine_hard_negatives(
        Dataset.from_dict({"query": [q for q, _ in rows], "positive": [d for _, d in rows]}),
        model,
        corpus=[f"d{number}" for number in range(DOCUMENTS)],
        num_negatives=n,
        output_scores=True,
        verbose=False,
        **options,
    )
    return {(r["query"], r["positive"], r["negative"]): r["scores"] for r in mined}


def ours(world, n, options):
    most = max(map(len, world[2].values()))
    order = ("absolute_margin", "relative_margin", "max_score", "min_score", "range_max", "range_min")
    filters = ", ".join(f"{{{name}: {options[name]}}}" for name in order if name in options)
    config = mining(f"mine.k={options['range_max'] + most}", f"mine.negatives={n}", f"mine.filters=[{filters}]")
    source = open_source(config, world[3])
    steps = open_steps(config, source, [])
    return {
        (triple.query_id, triple.pos_id, name): [triple.pos_score, score]
        for triple in mine_triples(config, source, steps, Tally([step.label for step in steps]))
        for name, score in zip(triple.neg_ids, triple.neg_scores, strict=True)
    }


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    n=st.integers(1, 4),
    beyond=st.integers(0, 30),
    range_min=st.integers(0, 6),
    bounds=st.fixed_dictionaries(
        {},
        optional={
            "absolute_margin": st.sampled_from([0.0, 0.02, 0.1, 0.5]),
            "relative_margin": st.sampled_from([0.0, 0.05, 0.3]),
            "max_score": st.sampled_from([-0.1, 0.3, 0.6, 0.9]),
            "min_score": st.sampled_from([-0.4, 0.0, 0.5, 0.8]),
        },
    ),
)
def test_the_same_options_give_the_same_triples(world, n, beyond, range_min, bounds):
    options = bounds | {"range_min": range_min, "range_max": range_min + n + beyond}
    expected, found = theirs(world, n, options), ours(world, n, options)
    assert found.keys() == expected.keys()
    for key, scores in expected.items():
        assert found[key] == pytest.approx(scores, abs=1e-6)


def test_the_margin_is_measured_from_the_lowest_of_a_querys_answers(world):
    """The sharpest of their meanings, once without chance: no negative scores above any answer of its query."""
    found = ours(world, 3, {"range_max": 30, "relative_margin": 0.05})
    lowest = {}
    for (query, _, _), (positive, _) in found.items():
        lowest[query] = min(positive, lowest.get(query, 1.0))
    assert any(len(names) > 1 for names in world[2].values())
    for (query, _, _), (_, negative) in found.items():
        assert negative <= lowest[query] - 0.05 * abs(lowest[query]) + 1e-6
