"""What is kept is found bit by bit, and what is not whole is not found."""

import logging

import pytest
import torch

from colmrl.errors import InputError
from colmrl.models import feature_cache
from colmrl.models.feature_cache import FeatureCache

ENTRIES = {
    "a": {"features": torch.randn(5, 4), "grid": torch.tensor([[1, 2, 2]])},
    "b": {"features": torch.randn(3, 2, 4).to(torch.bfloat16) * 1e30},
    "c": {"features": torch.randn(1, 4).half(), "tiles": torch.tensor([7])},
}


def opened(folder):
    return FeatureCache(folder, "f", {"of": "tests"})


@pytest.fixture
def filled(tmp_path):
    cache = opened(tmp_path)
    for key, entry in ENTRIES.items():
        cache.add(key, entry)
    cache.flush()
    return tmp_path


def shards(folder, suffix):
    return sorted(path for path in (folder / "f").glob(f"*.{suffix}") if path.name != "about.json")


def test_entries_come_back_bit_by_bit_in_their_dtype_and_shape(filled):
    cache = opened(filled)
    for key, entry in ENTRIES.items():
        read = cache.read(key)
        assert key in cache and read.keys() == entry.keys()
        assert all(read[name].dtype == entry[name].dtype and torch.equal(read[name], entry[name]) for name in read)
    assert "d" not in cache and cache.read("d") is None


def test_a_kill_costs_the_shard_that_was_not_full(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_cache, "_SHARD_BYTES", 160)
    cache = opened(tmp_path)
    sizes = {key: cache.add(key, entry) for key, entry in ENTRIES.items()}
    assert sizes["a"] >= 160 > max(sizes["b"], sizes["c"]) >= 80
    cache.add("d", {"features": torch.ones(1)})
    there = opened(tmp_path)
    assert [key in there for key in "abcd"] == [True, True, True, False] and len(shards(tmp_path, "tensors")) == 2


def test_a_shard_whose_index_was_not_written_yet_is_not_there(filled):
    shards(filled, "json")[0].unlink()
    assert "a" not in opened(filled)


def test_what_two_add_at_once_is_all_found(tmp_path):
    one, other = opened(tmp_path), opened(tmp_path)
    one.add("a", ENTRIES["a"])
    other.add("b", ENTRIES["b"])
    one.flush()
    other.flush()
    assert "b" not in one
    one.refresh()
    assert torch.equal(one.read("b")["features"], ENTRIES["b"]["features"]) and "a" in one


@pytest.mark.parametrize("damage", ["short", "no tensors", "no index", "other index"])
def test_a_damaged_shard_is_named_and_missing_again(damage, filled, caplog):
    (shard,), (index,) = shards(filled, "tensors"), shards(filled, "json")
    if damage == "short":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "no tensors":
        shard.unlink()
    else:
        index.write_text('[["a", 0' if damage == "no index" else '{"a": 3}')
    with caplog.at_level(logging.WARNING):
        cache = opened(filled)
    assert str(shard) in caplog.text and "a" not in cache and not shard.exists() and not index.exists()
    cache.add("a", ENTRIES["a"])
    cache.flush()
    assert torch.equal(opened(filled).read("a")["features"], ENTRIES["a"]["features"])


def test_a_flipped_bit_is_an_error_that_names_the_file(filled):
    (shard,) = shards(filled, "tensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    cache = opened(filled)
    assert cache.read("a") is not None
    with pytest.raises(InputError, match=f"{shard}: damaged: remove it"):
        cache.read("c")
