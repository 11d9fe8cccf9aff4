"""What is read of given vectors at each view, beside numpy's own; which arrays serve which views."""

import numpy as np
import pytest
from given import COUNTS, RECORDS, SPECS, WANTED, normalised, vectors_of, write

from colmrl.data.fingerprint import combined
from colmrl.errors import InputError
from colmrl.store import ArraySpec, EmbeddingStore, Manifest, arrays_for, begin, read_manifest, remove
from colmrl.store.checking import check_shard
from colmrl.store.manifest import Shard
from colmrl.view import TrainedViews, View


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
