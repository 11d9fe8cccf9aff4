"""Adding to a store, taking out of it, and what happens when that is interrupted."""

import json
import shutil

import numpy as np
import pytest
from conftest import search_store

from colmrl.encoding import begin_stores, encode
from colmrl.errors import InputError
from colmrl.store import EmbeddingStore, StoreWriter, remove
from colmrl.view import View


@pytest.fixture
def halves(sample, tmp_path):
    """The sample's data with half of its documents, and a function that gives back all, or changes one."""
    folder = shutil.copytree(sample / "train", tmp_path / "data")
    lines = (folder / "corpus.jsonl").read_text().splitlines(keepends=True)
    (folder / "corpus.jsonl").write_text("".join(lines[:25]))
    names = {json.loads(line)["_id"] for line in lines[:25]}
    for split in ("train", "test"):
        path = folder / "qrels" / f"{split}.tsv"
        if path.exists():
            header, *rows = path.read_text().splitlines(keepends=True)
            path.write_text(header + "".join(row for row in rows if row.split("\t")[1] in names))

    def put(some):
        (folder / "corpus.jsonl").write_text("".join(some))

    return folder, lines, put


def vectors(store, view="single@128"):
    kept = EmbeddingStore(store / "documents")
    return dict(zip(kept.ids, np.concatenate(list(kept.single(View.parse(view)))), strict=True))


def test_only_what_is_new_or_changed_is_encoded_when_it_is_added(halves, checkpoint, settings, tmp_path, monkeypatch):
    folder, lines, put = halves
    out = encode(settings(tmp_path), checkpoint, folder, tmp_path / "store")
    before = vectors(out)
    stamp = EmbeddingStore(out / "documents").stamp
    row = json.loads(lines[3])
    changed = json.dumps(row | {"text": "another text"}) + "\n"
    put([*lines[:3], changed, *lines[4:]])
    encoded = []
    monkeypatch.setattr("colmrl.encoding.embed", counting(encoded))
    encode(settings(tmp_path), checkpoint, folder, out, append=True)
    assert sorted(encoded) == sorted([row["_id"], *(json.loads(line)["_id"] for line in lines[25:])])
    after = vectors(out)
    assert len(after) == len(lines) and EmbeddingStore(out / "documents").stamp != stamp
    assert all((after[name] == before[name]).all() for name in before if name != row["_id"])
    assert not np.array_equal(after[row["_id"]], before[row["_id"]])
    whole = encode(settings(tmp_path), checkpoint, folder, tmp_path / "whole")
    for name, vector in vectors(whole).items():
        np.testing.assert_allclose(after[name], vector, atol=1e-5)
    hashes = [EmbeddingStore(store / "documents").manifest.content_hash for store in (out, whole)]
    assert hashes[0] == hashes[1]  # so that it is known to be of this data, though in another order
    found, expected = (search_store(store, View.parse("multi@64"), 48).run() for store in (out, whole))
    assert all(found[query] == pytest.approx(scores, abs=1e-5) for query, scores in expected.items())
    encoded.clear()
    encode(settings(tmp_path), checkpoint, folder, out, append=True)
    assert not encoded


def test_what_is_added_is_kept_as_what_is_there(halves, checkpoint, settings, tmp_path):
    folder, lines, put = halves
    out = encode(settings(tmp_path, "encode.views=[multi@64x4:int8]"), checkpoint, folder, tmp_path / "store")
    put(lines)
    encode(settings(tmp_path), checkpoint, folder, out, append=True)
    kept = EmbeddingStore(out / "documents")
    assert len(kept) == len(lines) and [spec.name for spec in kept.manifest.arrays] == ["multi-x4-int8"]
    with pytest.raises(InputError, match=r"arrays .--views: multi-x4-int8, not single."):
        encode(settings(tmp_path, "encode.views=[single@32]"), checkpoint, folder, out, append=True)


def test_the_store_stays_as_it_was_until_all_is_added(halves, checkpoint, settings, tmp_path, monkeypatch):
    folder, lines, put = halves
    out = encode(settings(tmp_path), checkpoint, folder, tmp_path / "store")
    put(lines)
    other = shutil.copytree(out, tmp_path / "other")
    encode(settings(tmp_path), checkpoint, folder, other, append=True)
    write = StoreWriter.write

    def killed(self, number, arrays):
        if number == 4:
            raise KeyboardInterrupt
        write(self, number, arrays)

    monkeypatch.setattr(StoreWriter, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        encode(settings(tmp_path), checkpoint, folder, out, append=True)
    assert len(EmbeddingStore(out / "documents")) == 25
    monkeypatch.undo()
    with pytest.raises(InputError, match="go on with --append"):
        encode(settings(tmp_path), checkpoint, folder, out)
    encode(settings(tmp_path), checkpoint, folder, out, append=True)
    for path in sorted(other.rglob("*.*")):
        assert (out / path.relative_to(other)).read_bytes() == path.read_bytes(), path.name
    assert not list(out.rglob("plan.json"))


def test_removed_documents_are_found_no_more(store, tmp_path, checkpoint, settings, sample):
    out = shutil.copytree(store, tmp_path / "store")
    full = EmbeddingStore(out / "documents")
    gone = [full.ids[0], full.ids[11], full.ids[47]]
    assert remove(out / "documents", gone) == 3
    kept = EmbeddingStore(out / "documents")
    assert kept.ids == [name for name in full.ids if name not in gone] and kept.stamp != full.stamp
    live = [full.ids.index(name) for name in kept.ids]
    for name in ("multi@64", "multi@16x4:int8"):
        view = View.parse(name)
        for row in (0, 8, 9, 44):
            some, whole = kept.multi_rows(view, [row]), full.multi_rows(view, [live[row]])
            np.testing.assert_array_equal(some.vectors, whole.vectors)
    for view in (View.parse("single@32"), View.parse("multi@16x4")):
        before, after = (search_store(folder, view, 48).run() for folder in (store, out))
        for query, scores in before.items():
            assert after[query] == pytest.approx({d: s for d, s in scores.items() if d not in gone}, abs=1e-6)
    with pytest.raises(InputError, match=f"no record {gone[0]!r} .and 1 more.: .* none was removed"):
        remove(out / "documents", [*gone[:2], kept.ids[0]])
    with pytest.raises(InputError, match="nothing would be left"):
        remove(out / "documents", kept.ids)
    encode(settings(tmp_path), checkpoint, sample / "train", out)
    encode(settings(tmp_path), checkpoint, sample / "train", out, append=True)
    assert EmbeddingStore(out / "documents").ids == kept.ids  # what was removed stays out, until it changes
    data = shutil.copytree(sample / "train", tmp_path / "data")
    lines = (data / "corpus.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    rows = [row | {"text": "another text"} if row["_id"] == gone[1] else row for row in rows]
    (data / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    encode(settings(tmp_path), checkpoint, data, out, append=True)
    assert EmbeddingStore(out / "documents").ids == [*kept.ids, gone[1]]


def test_a_byte_that_changed_is_found(store, tmp_path):
    out = shutil.copytree(store, tmp_path / "store") / "documents"
    assert StoreWriter(out).damaged() == []
    path = out / "multi-00002.npy"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    (out / "single-00001.npy").unlink()
    assert StoreWriter(out).damaged() == ["single-00001.npy", "multi-00002.npy"]


def test_a_damaged_shard_of_data_that_is_gone_is_said(halves, checkpoint, settings, tmp_path):
    folder, lines, put = halves
    out = encode(settings(tmp_path), checkpoint, folder, tmp_path / "store")
    put(lines[10:])
    encode(settings(tmp_path), checkpoint, folder, out, append=True)
    assert len(EmbeddingStore(out / "documents")) == len(lines)
    (out / "documents/single-00000.npy").unlink()
    with pytest.raises(InputError, match=r"shard 0 has to be made anew, but the data has no"):
        encode(settings(tmp_path), checkpoint, folder, out, append=True)


def counting(into):
    from colmrl.encoding import embed

    def run(model, kind, records, *others):
        into.extend(record.id for record in records)
        return embed(model, kind, records, *others)

    return run


def test_the_order_of_processes_decides_nothing(checkpoint, settings, sample, tmp_path, store):
    """Two processes' shares, written one after the other, are the store that one process writes."""
    from colmrl.data.reading import read_collection
    from colmrl.encoding import fill_stores, finish_stores
    from colmrl.models.retriever import Retriever, fingerprint, read_description

    config, description = settings(tmp_path), read_description(checkpoint)
    collection = read_collection(str(sample / "train"), config.data, description.show)
    records = {"documents": collection.documents, "queries": collection.queries}
    stamp = fingerprint(checkpoint)
    writers = begin_stores(config, description, records, str(sample / "train"), stamp, checkpoint, tmp_path / "out")
    model = Retriever.load(checkpoint).eval()
    missing = {kind: writer.missing() for kind, writer in writers.items()}
    fill_stores(config, model, records, writers, {kind: numbers[1::2] for kind, numbers in missing.items()})
    with pytest.raises(InputError, match=r"documents: shards 0, 2, 4 are not there"):
        finish_stores(writers)
    fill_stores(config, model, records, writers, {kind: numbers[::2] for kind, numbers in missing.items()})
    finish_stores(writers)
    for path in sorted(store.rglob("*.npy")):
        assert (tmp_path / "out" / path.relative_to(store)).read_bytes() == path.read_bytes(), path.name
