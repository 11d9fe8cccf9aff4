"""What an index finds, against scores that numpy alone computes."""

import hashlib
import json
from dataclasses import replace

import faiss
import numpy as np
import pytest
from stores import clustered, unit, write_kind, write_store

from colmrl.configure import load_config
from colmrl.errors import InputError
from colmrl.search import Asked, Plan, building, open_searcher, search
from colmrl.search.building import build_indexes
from colmrl.store import EmbeddingStore, remove
from colmrl.view import View, parse_views

SINGLE, MULTI = View("single", 16), View("multi", 16)
TYPES = [(SINGLE, kind) for kind in ("flat", "ivf", "hnsw", "ivfpq", "rabitq")]
TYPES += [(MULTI, kind) for kind in ("ivf", "ivfpq", "rabitq")]
COUNT = 300


@pytest.fixture(scope="module")
def made():
    return clustered(0, COUNT, 12)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("made") / "store", made)


def config(*overrides):
    return load_config(None, ["threads=1", "index.gpu=false", *overrides])


def build(store, view, kind, out, *overrides):
    (built,) = build_indexes(config(f"index.type={kind}", *overrides), store, [view], out)
    return built


def scores_of(made, view):
    """Queries × documents, by numpy."""
    cut = slice(None, view.dim)
    if view.head == "single":
        return unit(made["queries"][0][:, cut]) @ unit(made["documents"][0][:, cut]).T
    queries, documents = (
        [unit(i.numpy()[:, cut]) for i in made[kind][1].unpack()] for kind in ("queries", "documents")
    )
    return np.array([[(query @ document.T).max(1).mean() for document in documents] for query in queries])


def find(store, view, index, k, **options):
    searcher = open_searcher(EmbeddingStore(store / "documents"), Plan.of(view), index=index, **options)
    return searcher.rank(Asked.of_store(EmbeddingStore(store / "queries")), k)


def recall(positions, scores, k):
    best = np.argsort(-scores, axis=1)[:, :k]
    return np.mean([len(set(found[:k]) & set(wanted)) / k for found, wanted in zip(positions, best, strict=True)])


@pytest.mark.parametrize(("view", "kind"), TYPES, ids=[f"{view}-{kind}" for view, kind in TYPES])
def test_the_recall_that_an_index_states_is_what_numpy_counts(made, folder, tmp_path, view, kind):
    built = build(folder, view, kind, tmp_path, "index.candidates=20", "index.probes=3")
    assert built.folder == tmp_path / f"{view.slug}-{kind}"
    ranking = find(folder, view, built.folder, 100)
    scores = scores_of(made, view)
    for k in (10, 100):
        assert built.manifest.recall[str(k)] == pytest.approx(recall(ranking.positions, scores, k))
    assert built.manifest.recall["10"] > 0.5
    present = ranking.positions >= 0
    exact = np.take_along_axis(scores, np.maximum(ranking.positions, 0), 1)
    np.testing.assert_allclose(ranking.scores[present], exact[present], atol=1e-5)
    assert (ranking.scores[~present] == -np.inf).all() and (np.diff(ranking.scores) <= 1e-6)[present[:, 1:]].all()


@pytest.mark.parametrize("text", ["single@16", "single@8", "single@16:fp16"])
def test_a_flat_index_is_brute_force(made, folder, tmp_path, text):
    view = View.parse(text)
    built = build(folder, view, "flat", tmp_path)
    ranking = find(folder, view, built.folder, 50)
    scores = scores_of(made, view)
    best = -np.sort(-scores, axis=1)[:, :50]
    np.testing.assert_allclose(ranking.scores, best, atol=1e-3 if view.precision == "fp16" else 1e-6)
    np.testing.assert_allclose(np.take_along_axis(scores, ranking.positions, 1), best, atol=1e-3)
    assert built.manifest.recall == {"10": 1.0, "100": 1.0}
    kept = built.manifest.bytes / (COUNT * view.dim)
    assert kept == pytest.approx(2 if view.precision == "fp16" else 4, rel=0.05)


@pytest.mark.parametrize("kind", ["ivf", "ivfpq", "rabitq"])
def test_all_lists_and_all_candidates_are_exact_maxsim(made, folder, tmp_path, kind):
    built = build(folder, MULTI, kind, tmp_path, "index.lists=12")
    assert built.manifest.vectors == len(made["documents"][1].vectors) and built.manifest.lists == 12
    few = find(folder, MULTI, built.folder, 10, probes=1, candidates=10)
    ranking = find(folder, MULTI, built.folder, COUNT, probes=12, candidates=COUNT)
    scores = scores_of(made, MULTI)
    np.testing.assert_allclose(ranking.scores, -np.sort(-scores, axis=1), atol=1e-5)
    assert recall(few.positions, scores, 10) < 1 == recall(ranking.positions, scores, 10)


@pytest.mark.parametrize("keep", [COUNT, 15])
def test_a_funnel_ranks_what_each_stage_passes_on_by_the_next(made, folder, keep):
    plan = Plan.parse(f"single@8/{keep}+single@16/{keep}+multi@16")
    ranking = find(folder, plan, None, 10)
    scores = scores_of(made, MULTI)
    passed = np.argsort(-scores_of(made, View("single", 8)), axis=1)[:, :keep]
    allowed = np.full_like(scores, -np.inf)
    np.put_along_axis(allowed, passed, np.take_along_axis(scores, passed, 1), 1)
    np.testing.assert_array_equal(ranking.positions, np.argsort(-allowed, axis=1)[:, :10])
    np.testing.assert_allclose(ranking.scores, -np.sort(-allowed, axis=1)[:, :10], atol=1e-5)
    more = find(folder, plan, None, COUNT)
    assert more.positions.shape == (12, COUNT) and (more.positions[:, keep:] == -1).all()
    assert (more.scores[:, keep:] == -np.inf).all() and {len(run) for run in more.run().values()} == {keep}


def test_a_funnel_starts_from_an_index(made, folder, tmp_path):
    built = build(folder, View("single", 8), "ivf", tmp_path)
    plan = Plan.parse(f"single@8/{COUNT}+multi@16")
    ranking = find(folder, plan, built.folder, 10, probes=built.manifest.lists)
    np.testing.assert_allclose(ranking.scores, -np.sort(-scores_of(made, MULTI), axis=1)[:, :10], atol=1e-5)
    with pytest.raises(InputError, match="is of view single@8, not single@16"):
        find(folder, SINGLE, built.folder, 10)


def test_more_probes_find_more(made, folder, tmp_path):
    built = build(folder, SINGLE, "ivf", tmp_path, "index.probes=1", "index.lists=12")
    scores = scores_of(made, SINGLE)
    found = [recall(find(folder, SINGLE, built.folder, 10, probes=probes).positions, scores, 10) for probes in (1, 12)]
    assert found[0] < 1 == found[1]
    assert recall(find(folder, SINGLE, built.folder, 10).positions, scores, 10) == pytest.approx(found[0])


def test_the_facade_searches_an_index_for_the_queries_asked_for(folder, tmp_path):
    built = build(folder, SINGLE, "hnsw", tmp_path)
    stores = EmbeddingStore(folder / "queries"), EmbeddingStore(folder / "documents")
    ranking = search(*stores, SINGLE, 5, only={"q3", "q7"}, index=built.folder)
    assert ranking.query_ids == ["q3", "q7"]
    assert ranking.run()["q7"] == pytest.approx(search(*stores, SINGLE, 5).run()["q7"], abs=1e-6)


def test_what_is_there_stays_and_is_not_overwritten_by_another(folder, tmp_path):
    views = parse_views("single@16,single@8,multi@16")
    first = build_indexes(config("index.type=ivf"), folder, views, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = build_indexes(config("index.type=ivf"), folder, views, tmp_path)
    assert [one.there for one in first + again] == [False] * 3 + [True] * 3
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert [one.manifest for one in first] == [one.manifest for one in again]
    with pytest.raises(
        InputError, match=r"built with index.lists=null, not 5; seed=0, not 1: remove it, or give anoth"
    ):
        build(folder, SINGLE, "ivf", tmp_path, "index.lists=5", "seed=1")


@pytest.mark.parametrize(("view", "kind"), [(SINGLE, "ivf"), (MULTI, "rabitq")])
def test_other_settings_of_search_measure_an_index_anew_and_build_nothing(folder, tmp_path, monkeypatch, view, kind):
    settings = ["index.probes=2", "index.queries=7", "index.candidates=15"]
    first, whole = build(folder, view, kind, tmp_path / "a"), build(folder, view, kind, tmp_path / "b", *settings)
    monkeypatch.setattr(building, "new_index", None)
    again = build(folder, view, kind, tmp_path / "a", *settings)
    assert first.manifest.recall != again.manifest.recall and again.manifest.queries == 7
    commands = {"command": "", "commit": None}
    assert replace(again.manifest, **commands) == replace(whole.manifest, **commands)
    assert again.measured.build_s == first.measured.build_s


def test_an_index_of_another_store_is_refused(folder, tmp_path):
    built = build(folder, SINGLE, "flat", tmp_path / "out")
    other = write_store(tmp_path / "other", clustered(1, 50, 5))
    with pytest.raises(InputError, match=r"is of another store than .*other"):
        find(other, SINGLE, built.folder, 5)
    with pytest.raises(
        InputError, match=r"was built with the store .*store as it was, not .*other as it is: remove it"
    ):
        build(other, SINGLE, "flat", tmp_path / "out")
    with pytest.raises(InputError, match="not an index"):
        find(other, SINGLE, tmp_path, 5)


def test_removed_documents_are_never_found(tmp_path):
    vectors = clustered(2, 60, 20)
    store = write_store(tmp_path / "store", vectors, shard_size=25)
    before = build(store, SINGLE, "flat", tmp_path / "before")
    best = find(store, SINGLE, before.folder, 1)
    gone = sorted({best.document_ids[row] for row in best.positions[:, 0]})[:5]
    remove(store / "documents", gone)
    with pytest.raises(InputError, match="before records came or went"):
        find(store, SINGLE, before.folder, 1)
    stay = [row for row in range(60) if f"d{row}" not in gone]
    for view, kind in [(SINGLE, "flat"), (SINGLE, "rabitq"), (MULTI, "ivf")]:
        after = build(store, view, kind, tmp_path / "after")
        ranking = find(store, view, after.folder, 60, probes=60)
        assert not {name for run in ranking.run().values() for name in run} & set(gone)
        expected = -np.sort(-scores_of(vectors, view)[:, stay], axis=1)
        np.testing.assert_allclose(ranking.scores, expected, atol=1e-5)


@pytest.mark.parametrize(("view", "kind"), [(SINGLE, "rabitq"), (MULTI, "ivf")])
def test_an_index_that_is_not_whole_is_refused_with_a_remedy(folder, tmp_path, view, kind):
    built = build(folder, view, kind, tmp_path)
    path = built.folder / "index.faiss"
    whole = path.read_bytes()
    remedy = "remove the folder and run colmrl index again"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=f"{len(whole) // 2} bytes, not {len(whole)}.*{remedy}"):
        find(folder, view, built.folder, 5)
    flipped = bytearray(whole)
    flipped[-9] ^= 1  # of a vector or an id: FAISS reads it
    path.write_bytes(flipped)
    with pytest.raises(InputError, match=rf"index\.faiss: its hash is \w+, not {built.manifest.hash}.*{remedy}"):
        find(folder, view, built.folder, 5)
    path.unlink()
    with pytest.raises(InputError, match=remedy):
        find(folder, view, built.folder, 5)


def test_a_manifest_of_another_format_is_refused_as_such(folder, tmp_path):
    built = build(folder, SINGLE, "flat", tmp_path)
    (built.folder / "manifest.json").write_text(json.dumps({"format": 2}))
    with pytest.raises(InputError, match=r"manifest\.json: format: 2 is not 1: build the index again"):
        find(folder, SINGLE, built.folder, 5)


def test_what_this_faiss_cannot_read_is_refused(folder, tmp_path):
    built = build(folder, SINGLE, "flat", tmp_path)
    (built.folder / "index.faiss").write_bytes(b"of a later FAISS")
    stated = json.loads((built.folder / "manifest.json").read_text())
    digest = hashlib.blake2b(b"of a later FAISS", digest_size=16).hexdigest()
    (built.folder / "manifest.json").write_text(json.dumps(stated | {"bytes": 16, "hash": digest}))
    with pytest.raises(InputError, match=r"index\.faiss: cannot be read \("):
        find(folder, SINGLE, built.folder, 5)


@pytest.mark.parametrize(
    ("name", "key", "said"), [("manifest", "recall", "an object"), ("measured", "query_ms", "a valid number")]
)
def test_facts_that_cannot_be_read_are_said_with_their_file(folder, tmp_path, name, key, said):
    built = build(folder, SINGLE, "flat", tmp_path)
    path = built.folder / f"{name}.json"
    whole, remedy = path.read_text(), "remove the folder and run colmrl index again"
    for text, says in [
        (json.dumps(json.loads(whole) | {key: "much"}), f"{key}: Input should be {said}"),
        (whole[:-5], "Invalid JSON"),
        (whole.replace(key, "other"), f"{key}: Field required"),
    ]:
        path.write_text(text)
        with pytest.raises(InputError, match=rf"{name}\.json: {says}[^\n]*: {remedy}$"):
            find(folder, SINGLE, built.folder, 5)


@pytest.mark.parametrize(("view", "kind"), [t for t in TYPES if t[1] != "ivfpq"], ids=str)
def test_a_handful_of_documents_is_enough(tmp_path, view, kind):
    vectors = clustered(3, 4, 3)
    store = write_store(tmp_path / "store", vectors)
    built = build(store, view, kind, tmp_path / "out")
    assert built.manifest.lists in (None, 1)
    ranking = find(store, view, built.folder, 10)
    np.testing.assert_allclose(ranking.scores, -np.sort(-scores_of(vectors, view), axis=1), atol=1e-5)


def test_what_cannot_be_built_says_why(folder, tmp_path):
    small = write_store(tmp_path / "small", clustered(3, 40, 3))
    for store, view, kind, settings, said in [
        (small, SINGLE, "ivfpq", [], "40 vectors do not suffice.*use flat"),
        (small, SINGLE, "ivf", ["index.lists=41"], "41 lists cannot be trained on 40 vectors"),
        (folder, MULTI, "flat", [], "exact MaxSim needs no index"),
        (folder, MULTI, "hnsw", [], "build ivf or rabitq"),
        (folder, View("single", 4), "flat", [], "was not trained"),
    ]:
        with pytest.raises(InputError, match=said):
            build(store, view, kind, tmp_path / "out", *settings)
        assert not (tmp_path / "out" / f"{view.slug}-{kind}").exists()


def test_without_queries_documents_measure(made, tmp_path):
    write_kind(tmp_path / "store" / "documents", "documents", *made["documents"])
    for view in (SINGLE, MULTI):
        built = build(tmp_path / "store", view, "ivf", tmp_path / "out", "index.queries=12")
        assert (built.manifest.queries_of, built.manifest.queries) == ("documents", 12)
        assert built.manifest.recall["10"] > 0.5


def test_lists_are_trained_on_a_bounded_sample(folder, tmp_path):
    built = build(folder, MULTI, "ivf", tmp_path, "index.training_vectors=400")
    assert built.manifest.training_vectors == 400 and built.manifest.lists == 400 // 39
    index = faiss.read_index(str(built.folder / "index.faiss"))
    assert index.ntotal == built.manifest.vectors > 400
