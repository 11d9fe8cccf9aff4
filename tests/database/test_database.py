"""A store in Qdrant, by its engine in this process and by the cluster's client over HTTP (served.py answers)."""

import json
import os
import shutil
import signal
import threading

import numpy as np
import pytest

pytest.importorskip("qdrant_edge")
pytest.importorskip("qdrant_client")

from made_database import DOCUMENTS, write_made
from served import serve

from colmrl.configure import load_config
from colmrl.database import Address, cluster, export_index, open_database
from colmrl.database.agreement import agreements
from colmrl.database.connecting import connect
from colmrl.database.embedded import EmbeddedCollection
from colmrl.encoding import encode
from colmrl.errors import InputError
from colmrl.search import Asked, Plan, open_searcher
from colmrl.store import EmbeddingStore, remove
from colmrl.view import parse_views

VIEWS = "single@16,single@8:fp16,multi@16,multi@8x3,multi@16x3:int8,multi@16:binary"
ENCODED = "single@128,multi@64"  # of the tiny model's store
CONFIG = load_config(None, ["index.gpu=false", "threads=1"])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_made(tmp_path_factory.mktemp("made"))


pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning")


@pytest.fixture
def served():
    server = serve()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["embedded", "cluster"])
def address(request, tmp_path, served):
    place = str(tmp_path / "db") if request.param == "embedded" else f"http://127.0.0.1:{served.server_port}"
    return Address.parse(place)


def put(store, address, views="single@16,multi@16", config=CONFIG, **more):
    return export_index(config, store, parse_views(views), address, **more)


def points(address):
    """Id → hash of all that the collection holds."""
    collection = connect(address)
    listed = list(collection.hashes())
    collection.close()
    assert len(dict(listed)) == len(listed)
    return dict(listed)


def search(store, plan, address, k=10):
    """By the database, and exactly."""
    documents, asked = EmbeddingStore(store / "documents"), Asked.of_store(EmbeddingStore(store / "queries"))
    collection = connect(address)
    try:
        _, ours = open_database(documents, Plan.parse(plan), address, opened=collection)
        return ours.rank(asked, k), open_searcher(documents, Plan.parse(plan)).rank(asked, k)
    finally:
        collection.close()


def test_every_view_is_ranked_as_exact_search_ranks_it(made, address):
    done = put(made, address, VIEWS)
    assert (done.added, done.changed, done.removed, done.kept) == (DOCUMENTS, 0, 0, 0)
    found = agreements(CONFIG, made, parse_views(VIEWS), address, None, 12)
    assert {str(one.plan) for one in found} >= {*VIEWS.split(","), "single@16/100+multi@16"}
    for one in found:
        coded = one.plan.view.precision != "fp32"  # kept in 16 bits there, and found by codes (not in the local mode)
        assert one.difference < (1e-3 if coded else 1e-6), one
        assert one.recall >= (0.9 if coded else 1), one


def test_a_funnel_is_the_databases_work_and_later_stages_ours(made, address):
    put(made, address, "single@8,multi@16")
    for plan in ("single@8/12+multi@16", "single@8/12+multi@8", "single@8/20+multi@16/8+single@16"):
        ranking, expected = search(made, plan, address, 5)
        np.testing.assert_allclose(ranking.scores, expected.scores, atol=1e-6)
        assert (ranking.positions == expected.positions).all()
    with pytest.raises(InputError, match=r"holds single@8, multi@16, not single@16: begin with one of these"):
        search(made, "single@16+multi@16", address)


def test_payload_is_there_and_filters(made, address):
    put(made, address)
    collection = connect(address)
    kept = payloads(collection)
    collection.close()
    lines = [json.loads(line) for line in (made.parent / "data/corpus.jsonl").read_text().splitlines()]
    wanted = {line["_id"]: line for line in lines}
    assert kept.keys() == wanted.keys()
    for name, payload in kept.items():
        assert {field: payload[field] for field in ("title", "text", "meta")} == {
            field: wanted[name][field] for field in ("title", "text", "meta")
        }
    for where, holds in (
        ("?meta.book=guide", lambda row: row["meta"]["book"] == "guide"),
        ("?meta.page=7", lambda row: row["meta"]["page"] == 7),
        ("?meta.book=atlas&title=page 1&title=page 2&title=page 3", lambda row: row["title"] in ("page 1", "page 2")),
    ):
        asked = Address.parse(address.place + where)
        for plan in ("multi@16", f"single@16/{DOCUMENTS}+multi@16"):
            ranking, _ = search(made, plan, asked, DOCUMENTS)
            found = {ranking.document_ids[p] for p in ranking.positions[0] if p >= 0}
            assert found == {name for name, row in wanted.items() if holds(row)}


def payloads(collection):
    if hasattr(collection, "_client"):
        records, _ = collection._client.scroll(collection._name, limit=100, with_payload=True)
    else:
        from qdrant_edge import ScrollRequest

        records, _ = collection._shard.scroll(ScrollRequest(limit=100, with_payload=True))
    return {record.payload["id"]: record.payload for record in records}


def test_a_killed_export_goes_on_where_it_was(made, address, monkeypatch):
    """Killed for real, in a process of its own, in the middle of its second batch."""
    from colmrl.database import writing

    monkeypatch.setattr(writing, "_MOST", 10)
    pid = os.fork()
    if not pid:
        batches, kind = [], EmbeddedCollection if not address.remote else cluster.ClusterCollection
        upsert = kind.upsert

        def dying(self, some):
            batches.append(some)
            upsert(self, some[: 4 if len(batches) == 2 else None])
            if len(batches) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        kind.upsert = dying
        try:
            put(made, address)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert len(points(address)) == 14
    with pytest.raises(InputError, match=r"is not finished: colmrl export index --store"):
        search(made, "multi@16", address)
    sent, kind = [], EmbeddedCollection if not address.remote else cluster.ClusterCollection
    upsert = kind.upsert
    monkeypatch.setattr(kind, "upsert", lambda self, some: (sent.extend(some), upsert(self, some)))
    done = put(made, address)
    assert (done.added, done.kept, done.changed) == (DOCUMENTS - 14, 14, 0) and len(sent) == DOCUMENTS - 14
    assert points(address).keys() == set(EmbeddingStore(made / "documents").ids)
    ranking, expected = search(made, "multi@16", address)
    np.testing.assert_allclose(ranking.scores, expected.scores, atol=2e-6)
    assert put(made, address).added == 0 and len(sent) == DOCUMENTS - 14


def test_append_and_remove_are_followed(checkpoint, settings, sample, tmp_path, address):
    data = shutil.copytree(sample / "train", tmp_path / "data")
    lines = (data / "corpus.jsonl").read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines]
    (data / "corpus.jsonl").write_text("".join(lines[:30]))
    (data / "qrels/train.tsv").unlink()
    store = encode(settings(tmp_path), checkpoint, data, tmp_path / "store")
    put(store, address, ENCODED)
    before = points(address)
    changed = json.dumps(rows[3] | {"text": "another text"}) + "\n"
    described = json.dumps(rows[4] | {"meta": {"book": "new"}}) + "\n"  # in the payload alone: nothing is encoded anew
    (data / "corpus.jsonl").write_text("".join([*lines[:3], changed, described, *lines[5:]]))
    encode(settings(tmp_path), checkpoint, data, store, append=True)
    remove(store / "documents", [rows[0]["_id"], rows[1]["_id"]])
    with pytest.raises(InputError, match=r"is of .*store as it was: colmrl export index"):
        search(store, "multi@64", address)
    done = put(store, address, ENCODED)
    assert (done.added, done.changed, done.removed, done.documents) == (18, 2, 2, 46)
    after = points(address)
    assert after.keys() == set(EmbeddingStore(store / "documents").ids)
    assert {name for name in after if name in before and after[name] != before[name]} == {
        rows[3]["_id"],
        rows[4]["_id"],
    }
    ranking, expected = search(store, "multi@64", address)
    np.testing.assert_allclose(ranking.scores, expected.scores, atol=1e-6)


def test_a_collection_of_something_else_is_refused_and_left_alone(made, tmp_path, address):
    put(made, address)
    before = points(address)
    other = shutil.copytree(made, tmp_path / "other")
    for kind in ("documents", "queries"):
        path = other / kind / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "f" * 32}))
    with pytest.raises(InputError, match=r"holds vectors of another checkpoint .*: export into another --collection"):
        put(other, address)
    with pytest.raises(InputError, match=r"is of another checkpoint than"):
        search(other, "multi@16", address)
    with pytest.raises(InputError, match=r"holds views single@16,multi@16: give --views single@16,multi@16"):
        put(made, address, "single@16")
    with pytest.raises(InputError, match=r"no such collection: colmrl export index"):
        search(made, "multi@16", Address.parse(address.place, "elsewhere"))
    data = shutil.copytree(made.parent / "data", tmp_path / "data")
    (data / "corpus.jsonl").write_text((data / "corpus.jsonl").read_text().replace("text 5", "another text"))
    config = load_config(None, [f"data.path={data}", "index.gpu=false"])
    with pytest.raises(InputError, match=r"is another document now: give the data"):
        put(made, address, config=config)
    assert points(address) == before


def test_a_collection_that_we_did_not_make_is_left_alone(made, tmp_path, served):
    from qdrant_client import models

    theirs = models.VectorParams(size=4, distance=models.Distance.DOT)
    served.qdrant.create_collection("documents", vectors_config=theirs)
    with pytest.raises(InputError, match=r"was not made by colmrl export index: give another --collection"):
        put(made, Address.parse(f"http://127.0.0.1:{served.server_port}"))
    (tmp_path / "db/documents").mkdir(parents=True)
    (tmp_path / "db/documents/letters.txt").write_text("precious")
    with pytest.raises(InputError, match=r"holds something else \(letters.txt\): give another --collection"):
        put(made, Address.parse(str(tmp_path / "db")))
    assert (tmp_path / "db/documents/letters.txt").read_text() == "precious"


def test_a_folder_that_another_process_has_open_is_said(made, tmp_path):
    address = Address.parse(str(tmp_path / "db"))
    put(made, address)
    held = connect(address)
    assert next(iter(held.hashes()))
    with pytest.raises(InputError, match=r"db#documents: is open in another process"):
        put(made, address)
    held.close()
