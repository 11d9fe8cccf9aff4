"""The canonical 5-core Amazon Beauty sequences in ../shared; skipped, saying so, where they are absent."""

import time
from collections import Counter
from pathlib import Path

import pytest

from colmrl.data.sequences import read_sequences
from colmrl.errors import InputError

FOLDER = Path(__file__).parents[2].parent / "shared/data/amazon_beauty"
WITHOUT_TEXT = "B001LTVF7G"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not there")


@pytest.fixture(scope="module")
def raw():
    """user → items, straight from the file."""
    return {line.split()[0]: line.split()[1:] for line in (FOLDER / "user_sequence.txt").open()}


@pytest.fixture(scope="module")
def read():
    begun = time.perf_counter()
    collection = read_sequences(FOLDER, strict=False)
    assert time.perf_counter() - begun < 10
    return collection


def test_the_files_are_the_canonical_5_core(raw):
    items = Counter(item for sequence in raw.values() for item in sequence)
    assert (len(raw), len(items), items.total()) == (22_363, 12_101, 198_502)
    assert min(map(len, raw.values())) == 5 and min(items.values()) == 5
    assert all(len(set(sequence)) == len(sequence) for sequence in raw.values())


def test_the_one_item_without_text_is_an_error_or_left_out_of_17_sequences(raw, read):
    with pytest.raises(InputError, match=rf"item_short_text\.txt:6923: text: item '{WITHOUT_TEXT}' has none"):
        read_sequences(FOLDER)
    assert sum(WITHOUT_TEXT in sequence for sequence in raw.values()) == 17
    assert read.notes == (
        "22363 users, 12100 items, 198485 interactions",
        "1 items without text were left out; 17 interactions with them were taken out of the sequences",
    )


def test_all_targets_are_those_of_leaving_one_out_of_the_raw_file(raw, read):
    shown = {user: [item for item in sequence if item != WITHOUT_TEXT] for user, sequence in raw.items()}
    expected = {"train": {}, "valid": {}, "test": {}}
    for user, items in shown.items():
        expected["test"][f"{user}/{len(items) - 1}"] = {items[-1]: 1}
        expected["valid"][f"{user}/{len(items) - 2}"] = {items[-2]: 1}
        expected["train"] |= {f"{user}/{n}": {items[n]: 1} for n in range(1, len(items) - 2)}
    assert read.qrels == expected
    assert [len(read.qrels[split]) for split in expected] == [131_396, 22_363, 22_363]
    assert len(read.queries) == 176_122 == len(read.queries.position)
    texts = dict(line.rstrip("\n").split(" ", 1) for line in (FOLDER / "item_short_text.txt").open())
    for query in read.queries[::5000]:
        user, _, position = query.id.rpartition("/")
        before = shown[user][: int(position)][-20:]
        assert query.text.split("\n")[1:] == [texts[item] for item in before]
