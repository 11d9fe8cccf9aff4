"""The canonical 5-core Amazon Beauty sequences in ../shared; skipped, saying so, where they are absent."""

from collections import Counter
from pathlib import Path

import pytest

from colmrl.data.sequences import read_sequences

FOLDER = Path(__file__).parents[2].parent / "shared/data/amazon_beauty"
WITHOUT_TEXT = "B001LTVF7G"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not there")


@pytest.fixture(scope="module")
def raw():
    """user → items, straight from the file."""
    return {line.split()[0]: line.split()[1:] for line in (FOLDER / "user_sequence.txt").open()}


@pytest.fixture(scope="module")
def read():
    return read_sequences(FOLDER)


def test_the_files_are_the_canonical_5_core(raw):
    items = Counter(item for sequence in raw.values() for item in sequence)
    assert (len(raw), len(items), items.total()) == (22_363, 12_101, 198_502)
    assert min(map(len, raw.values())) == 5 and min(items.values()) == 5
    assert all(len(set(sequence)) == len(sequence) for sequence in raw.values())


def test_all_of_them_are_read_and_the_one_item_without_text_is_shown_by_its_id(read):
    assert read.notes == (
        "22363 users, 12101 items, 198502 interactions",
        f"1 items without text are shown by their ids: {WITHOUT_TEXT}",
    )
    assert read.documents.named(WITHOUT_TEXT).text == WITHOUT_TEXT


def test_all_targets_are_those_of_leaving_one_out_of_the_raw_file(raw, read):
    expected = {"train": {}, "valid": {}, "test": {}}
    for user, items in raw.items():
        expected["test"][f"{user}/{len(items) - 1}"] = {items[-1]: 1}
        expected["valid"][f"{user}/{len(items) - 2}"] = {items[-2]: 1}
        expected["train"] |= {f"{user}/{n}": {items[n]: 1} for n in range(1, len(items) - 2)}
    assert read.qrels == expected
    assert [len(read.qrels[split]) for split in expected] == [131_413, 22_363, 22_363]
    assert len(read.queries) == 176_139 == len(read.queries.position)
    lines = (FOLDER / "item_short_text.txt").read_text().splitlines()
    texts = {item: text for item, _, text in (line.partition(" ") for line in lines)}
    for query in read.queries[::5000]:
        user, _, position = query.id.rpartition("/")
        before = raw[user][: int(position)][-20:]
        assert query.text.split("\n")[1:] == [texts.get(item) or item for item in reversed(before)]
