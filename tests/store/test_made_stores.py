"""A store of given vectors, without a model: what is read at each view, beside numpy's own; what is planned, added and
taken out; what a damaged file is answered with.
"""

import json

import numpy as np
import pytest

from colmrl.data.fingerprint import combined
from colmrl.errors import InputError
from colmrl.scoring import MultiVectors
from colmrl.store import ArraySpec, EmbeddingStore, Manifest, StoreWriter, arrays_for, begin, read_manifest, remove
from colmrl.store.checking import check_shard
from colmrl.store.manifest import Shard
from colmrl.view import TrainedViews, View

COUNTS = (3, 1, 4, 2, 2)  # vectors of each record, in shards of two
RECORDS = {f"d{n}": f"{n + 1:032x}" for n in range(len(COUNTS))}
SPECS = (
    ArraySpec("single", 8),
    ArraySpec("multi", 8),
    ArraySpec("multi", 8, 2, "int8"),
    ArraySpec("single", 8, None, "binary"),
)
SAID = {"kind": "documents", "fingerprint": "f", "checkpoint": "c", "data": "x", "shard_size": 2, "content_hash": ""}
WANTED = Manifest(**SAID, arrays=SPECS, single_dims=(8, 4), multi_dims=(8, 4))


def normalised(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def vectors_of(name):
    """Single vector, vectors, and their places of a record: drawn by its name."""
    draw, count = np.random.default_rng(int(name[1:])), COUNTS[int(name[1:]) % len(COUNTS)]
    places = np.stack([np.arange(count), draw.integers(0, 9, count)], 1).astype(np.float32)
    return normalised(draw.normal(size=8)), normalised(draw.normal(size=(count, 8))), places


def write(writer):
    """Every shard that is missing, then the end of it."""
    for number in writer.missing():
        made = [vectors_of(name) for name in writer.ids(number)]
        single = np.stack([one for one, _, _ in made]).astype(np.float32)
        packed = MultiVectors.pack([_tensor(some) for _, some, _ in made])
        places = _tensor(np.concatenate([places for _, _, places in made]))
        pooled = MultiVectors.pack([_tensor(normalised(some[:2])) for _, some, _ in made])
        multi = MultiVectors(packed.vectors, packed.offsets, places)
        writer.write(number, {"single": single, "multi": multi, "multi-x2-int8": pooled, "single-binary": single})
    writer.finish()


def _tensor(array):
    import torch

    return torch.from_numpy(np.asarray(array, dtype=np.float32))


@pytest.fixture
def folder(tmp_path):
    write(begin(tmp_path / "made", WANTED, RECORDS))
    return tmp_path / "made"


def single(store, view):
    return np.concatenate(list(store.single(View.parse(view))))


def multi(store, view):
    return [item.numpy() for shard in store.multi(View.parse(view)) for item in shard.unpack()]


@pytest.mark.parametrize("gone", [[], ["d1"], ["d2", "d3"], ["d4", "d0"]])
def test_every_view_is_the_prefix_of_what_was_written_row_by_row(folder, gone):
    assert not gone or remove(folder, gone) == len(gone)
    store, kept = EmbeddingStore(folder), [name for name in RECORDS if name not in gone]
    assert store.ids == kept and len(store) == len(kept) == store.manifest.records and store.removed == set(gone)
    assert store.manifest.content_hash == combined(RECORDS[name] for name in kept)
    own = [vectors_of(name) for name in kept]
    for dim in (8, 4):
        ones = normalised(np.stack([one for one, _, _ in own])[:, :dim])
        np.testing.assert_allclose(single(store, f"single@{dim}"), ones, atol=1e-6)
        bits = np.where(ones > 0, 1, -1) / dim**0.5
        np.testing.assert_allclose(single(store, f"single@{dim}:binary"), bits, atol=1e-6)
        many = [normalised(some[:, :dim]) for _, some, _ in own]
        for wanted, found in zip(many, multi(store, f"multi@{dim}"), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-6)
        for wanted, found in zip(many, multi(store, f"multi@{dim}x2:int8"), strict=True):
            np.testing.assert_allclose(found, wanted[:2], atol=0.03)
    rows = list(range(len(kept)))[::-1]
    np.testing.assert_allclose(store.single_rows(View("single", 8), rows), single(store, "single@8")[::-1])
    some = store.multi_rows(View("multi", 8), [*rows, 0])
    for item, row in zip(some.unpack(), [*rows, 0], strict=True):
        np.testing.assert_allclose(item.numpy(), own[row][1], atol=1e-6)
    assert some.positions is not None
    np.testing.assert_array_equal(some.positions.numpy(), np.concatenate([own[row][2] for row in [*rows, 0]]))
    coded = store.coded_rows(View("multi", 4), rows)
    for codes, row in zip(coded, rows, strict=True):
        np.testing.assert_allclose(codes.decode().numpy(), normalised(own[row][1][:, :4]), atol=1e-6)
    assert list(store.counts(SPECS[1])) == [len(some) for _, some, _ in own]
    assert store.vectors_per_record(View("multi", 4)) == np.mean([len(some) for _, some, _ in own])
    assert store.vectors_per_record(View("multi", 8, 2, "int8")) == np.mean([min(2, len(some)) for _, some, _ in own])
    assert store.vectors_per_record(View("single", 8)) == 1


def test_places_are_read_with_whole_shards_of_all_vectors(folder):
    shards = list(EmbeddingStore(folder).multi(View("multi", 4)))
    places = np.concatenate([shard.positions.numpy() for shard in shards])
    np.testing.assert_array_equal(places, np.concatenate([vectors_of(name)[2] for name in RECORDS]))
    assert all(shard.positions is None for shard in EmbeddingStore(folder).multi(View("multi", 4, 2)))


def test_pooling_on_reading_is_the_same_by_shards_by_rows_and_held(folder):
    store, held = EmbeddingStore(folder), EmbeddingStore(folder)
    held.hold_pooled([2, 3])
    for view in (View("multi", 8, 2), View("multi", 4, 3)):
        whole = [item.numpy() for shard in store.multi(view) for item in shard.unpack()]
        assert [len(item) for item in whole] == [min(view.vectors or 0, count) for count in COUNTS]
        for other in (
            [i.numpy() for s in held.multi(view) for i in s.unpack()],
            map(np.array, store.multi_rows(view, range(5)).unpack()),
        ):
            for one, same in zip(whole, other, strict=True):
                np.testing.assert_allclose(one, same, atol=1e-6)
        for one, codes in zip(whole, store.coded_rows(view, range(5)), strict=True):
            np.testing.assert_allclose(one, codes.decode().numpy(), atol=1e-6)
        for one, (_, all_of_it, _) in zip(whole, map(vectors_of, RECORDS), strict=True):
            if len(all_of_it) <= (view.vectors or 0):
                np.testing.assert_allclose(one, normalised(all_of_it[:, : view.dim]), atol=1e-6)


def test_views_say_what_is_kept_and_what_can_be_made_of_it(folder):
    store = EmbeddingStore(folder)
    kept = [
        "single@8",
        "single@4",
        "multi@8",
        "multi@4",
        "multi@8x2:int8",
        "multi@4x2:int8",
        "single@8:binary",
        "single@4:binary",
    ]
    assert [str(view) for view in store.views()] == kept
    made = "multi@8x32 (or any other number of vectors), multi@8:fp16, multi@8:int8, multi@8:binary"
    assert store.made_on_reading() == ["single@8:fp16, single@8:int8, single@8:binary", made]
    assert store.array_of(View("multi", 4, 2, "int8")) == SPECS[2] and store.array_of(View("multi", 4, 2)) == SPECS[1]
    assert store.array_of(View("single", 4, None, "binary")) == SPECS[3]
    with pytest.raises(InputError, match="no document has more than 4 vectors"):
        store.array_of(View("multi", 8, 5))
    store.array_of(View("multi", 8, 4))


def test_of_a_damaged_file_its_shard_is_said_and_missing_and_no_other(folder):
    for path in sorted(folder.glob("*.npy")):
        number, content = int(path.name.split(".")[0][-5:]), path.read_bytes()
        for broken in (content[: len(content) // 2], b"", None):
            path.unlink() if broken is None else path.write_bytes(broken)
            assert StoreWriter(folder).missing() == [number], path
            with pytest.raises(InputError, match=f"shard {number}"):
                EmbeddingStore(folder)
            assert StoreWriter(folder).damaged() == [path.name]
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert StoreWriter(folder).damaged() == [path.name]
        path.write_bytes(content)
    assert StoreWriter(folder).missing() == StoreWriter(folder).damaged() == []
    assert set(read_manifest(folder).shards[0].files) == {path.name for path in folder.glob("*-00000*")}


def test_a_lost_shard_is_made_again_and_the_rest_stays(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "multi-00001.npy").write_bytes(b"cut")
    (folder / "ids-00002.jsonl").unlink()
    (folder / "x.partial").write_text("of a run that was killed")
    writer = begin(folder, WANTED, RECORDS)
    assert writer.missing() == [1] and not writer.finished and not (folder / "x.partial").exists()
    assert not list(folder.glob("*-00001*.npy"))
    with pytest.raises(InputError, match=r"shards 1 are not there"):
        writer.finish()
    write(writer)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    again = begin(folder, WANTED, RECORDS)
    assert again.finished and again.missing() == []


def test_what_is_added_is_new_or_changed_and_what_was_taken_out_stays_out(folder):
    remove(folder, ["d1", "d3"])
    changed = {**RECORDS, "d0": "a" * 32, "d9": "b" * 32}
    with pytest.raises(InputError, match=r"changed: add what changed to it with --append"):
        begin(folder, WANTED, changed)
    write(begin(folder, WANTED, changed, append=True))
    store = EmbeddingStore(folder)
    assert store.ids == ["d2", "d4", "d0", "d9"] and store.manifest.removed == (0, 1, 3)
    assert [shard.records for shard in store.manifest.shards] == [2, 2, 1, 2]
    assert store.manifest.content_hash == combined(changed[name] for name in store.ids)
    np.testing.assert_allclose(single(store, "single@8"), np.stack([vectors_of(n)[0] for n in store.ids]), atol=1e-6)
    writer = StoreWriter(folder)
    assert [writer.hidden(n) for n in range(4)] == [{0, 1}, {1}, set(), set()] and writer.ids(3) == ["d0", "d9"]
    assert begin(folder, WANTED, changed, append=True).finished, "nothing more to add"
    back = {**changed, "d1": "c" * 32}  # another than what was taken out
    write(begin(folder, WANTED, back, append=True))
    assert EmbeddingStore(folder).ids == ["d2", "d4", "d0", "d9", "d1"]


def test_what_cannot_be_taken_out_is_said_and_nothing_is(folder):
    stated = (folder / "manifest.json").read_bytes()
    for ids, says in (
        (["d0", "x", "y"], r"no record 'x' \(and 1 more\)"),
        (["x"], "no record 'x':"),
        (list(RECORDS), "nothing would be left"),
    ):
        with pytest.raises(InputError, match=says):
            remove(folder, ids)
    assert (folder / "manifest.json").read_bytes() == stated
    assert remove(folder, ["d4", "d4"]) == 1 and read_manifest(folder).removed == (4,)
    (folder / "plan.json").write_bytes(stated)
    with pytest.raises(InputError, match="not finished"):
        remove(folder, ["d0"])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"fingerprint": "g"}, r"another fingerprint \(f, not g\): use another folder, or remove it$"),
        ({"pooling": "mean"}, r"another pooling \(ward, not mean\)"),
        ({"shard_size": 3}, r"another shard_size \(2, not 3\)"),
        (
            {"arrays": SPECS[:2]},
            r"arrays \(--views: single and multi and multi-x2-int8 and single-binary, not single and multi\)",
        ),
    ],
)
def test_another_store_in_the_folder_is_refused_with_what_differs(folder, tmp_path, other, says):
    with pytest.raises(InputError, match=says):
        begin(folder, Manifest(**{**vars(WANTED), **other}), RECORDS)
    begin(tmp_path / "plan", WANTED, RECORDS)
    with pytest.raises(InputError, match=says):
        begin(tmp_path / "plan", Manifest(**{**vars(WANTED), **other}), RECORDS)
    free = {"command": "again", "commit": "1", "checkpoint": "moved", "data": "moved"}
    assert begin(folder, Manifest(**{**vars(WANTED), **free}), RECORDS).finished


def test_other_records_are_refused_unless_they_are_to_be_added(folder):
    with pytest.raises(InputError, match=r"content_hash \(the data's records changed\).*--append$"):
        begin(folder, WANTED, {**RECORDS, "d0": "f" * 32})
    begin(folder, WANTED, {**RECORDS, "d5": "f" * 32}, append=True)
    assert (folder / "plan.json").is_file() and EmbeddingStore(folder).ids == list(RECORDS), "readable meanwhile"
    with pytest.raises(InputError, match="records were being added"):
        begin(folder, WANTED, RECORDS)


def test_no_or_half_a_manifest_is_said(folder, tmp_path):
    with pytest.raises(InputError, match=r"not a store \(no manifest.json\)"):
        read_manifest(tmp_path)
    begin(tmp_path / "plan", WANTED, RECORDS)
    with pytest.raises(InputError, match="not finished: run encode.py again"):
        read_manifest(tmp_path / "plan")
    path = folder / "manifest.json"
    stated = json.loads(path.read_text())
    for wrong, says in (
        ({**stated, "format": 1}, "format: 1 is not 2"),
        ([], "cannot be read"),
        ({"format": 2}, "cannot be read"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=says):
            read_manifest(folder)
    for row in (-1, 5):
        path.write_text(json.dumps({**stated, "removed": [row]}))
        with pytest.raises(InputError, match="rows that are not there"):
            EmbeddingStore(folder)


@pytest.mark.parametrize("lines", ['{"id": "d0"}\n', "[]\n", "x\n", '{"id": "d0", "hash": "00"}\n', ""])
def test_ids_that_are_not_those_that_were_planned_are_said(folder, lines):
    (folder / "ids-00001.jsonl").write_text(lines)
    with pytest.raises(InputError, match=r"ids-00001.jsonl: not whole"):
        EmbeddingStore(folder)
    assert begin(folder, WANTED, RECORDS).finished and EmbeddingStore(folder).ids == list(RECORDS)


def test_the_stamp_is_of_files_and_removed_rows(folder):
    manifest = read_manifest(folder)
    assert len(manifest.stamp) == 32 and manifest.stamp == read_manifest(folder).stamp
    shards = (Shard(2, "", {"a": "b"}), *manifest.shards[1:])
    others = [{"removed": (1,)}, {"fingerprint": "g"}, {"shards": shards}]
    assert len({manifest.stamp, *(Manifest(**{**vars(manifest), **other}).stamp for other in others)}) == 4
    assert Manifest(**{**vars(manifest), "command": "another"}).stamp == manifest.stamp


@pytest.mark.parametrize(
    ("views", "kind", "arrays"),
    [
        ("", "documents", "single@8:fp16 multi@8:fp16"),
        ("", "queries", "single@8:fp16 multi@8:fp16"),
        ("single@4 single@8 multi@4x2:int8 multi@8x2:int8 multi@4", "documents", "single@8 multi@8x2:int8 multi@4"),
        ("single@4:fp16 single@8:fp16 multi@8x2:fp16 multi@4:int8", "queries", "single@8:fp16 multi@8"),
    ],
)
def test_arrays_are_as_few_as_keep_all_views(views, kind, arrays):
    found = arrays_for([View.parse(view) for view in views.split()], WANTED.trained, kind, "fp16")
    assert [str(View(s.head, s.dim, s.vectors, s.precision)) for s in found] == arrays.split()
    with pytest.raises(InputError, match="single@5"):
        arrays_for([View("single", 5)], TrainedViews((8,), ()), kind)


@pytest.mark.parametrize(
    ("kept", "serves", "does_not"),
    [
        ("multi@8", "multi@8 multi@4:fp16 multi@4:int8 multi@8:binary multi@4x2", "single@8"),
        ("multi@4", "multi@4 multi@4:int8", "multi@8 multi@4x2"),
        ("multi@8:fp16", "multi@8:fp16 multi@8:int8 multi@4x3:binary", "multi@8 multi@8x2"),
        ("multi@8:int8", "multi@8:int8 multi@4:int8", "multi@8 multi@8:fp16 multi@8:binary multi@8x2:int8"),
        ("multi@8x2", "multi@8x2 multi@4x2:binary", "multi@8 multi@8x1 multi@8x3"),
        ("single@8:binary", "single@8:binary single@4:binary", "single@8 single@8:int8 multi@8:binary"),
    ],
)
def test_an_array_serves_what_is_no_finer_than_it_is(kept, serves, does_not):
    view = View.parse(kept)
    spec = ArraySpec(view.head, view.dim, view.vectors, view.precision)
    assert all(spec.serves(View.parse(name), 8) for name in serves.split())
    assert not any(spec.serves(View.parse(name), 8) for name in does_not.split())
    assert spec.placed == (kept in ("multi@8", "multi@4", "multi@8:fp16"))


@pytest.mark.parametrize(
    ("part", "array", "says"),
    [
        (".offsets", [0, 2], r"offsets: \(2,\)"),
        (".offsets", [1, 2, 3], "do not rise from 0"),
        (".offsets", [0, 4, 3], "do not rise from 0"),
        (".offsets", np.array([0, 2, 3], np.int32), "offsets: .* of int32"),
        ("", np.zeros((4, 9), np.int8), r"multi-x2-int8: \(4, 9\)"),
        ("", np.zeros((3, 9), np.uint8), "of uint8, not .* of int8"),
        (".scales", np.zeros(2, np.float32), r"scales: \(2,\)"),
        (".scales", np.zeros(3), "scales: .* of float64"),
    ],
)
def test_files_of_another_shape_or_type_are_no_shard(part, array, says):
    right = {".offsets": np.array([0, 2, 3]), "": np.zeros((3, 9), np.int8), ".scales": np.zeros(3, np.float32)}
    spec = ArraySpec("multi", 9, 2, "int8")
    check_shard(spec, Shard(2, ""), right.__getitem__)
    with pytest.raises(ValueError, match=says):
        check_shard(spec, Shard(2, ""), {**right, part: np.asarray(array)}.__getitem__)
    check_shard(ArraySpec("single", 9, None, "binary"), Shard(2, ""), {"": np.zeros((2, 2), np.uint8)}.__getitem__)
