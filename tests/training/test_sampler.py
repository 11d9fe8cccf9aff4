"""Batches of one source each: everything is shown, evenly over processes, and again the same for the same seed."""

import random
from collections import Counter
from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from colmrl.training.sampler import RetrievalBatches


def epoch_of(sizes, weights, batch_size, seed=0, world=1, epoch=0):
    """The epoch's batches, each as the lists of all processes."""
    ranks = [RetrievalBatches(sizes, weights, batch_size, seed, rank, world) for rank in range(world)]
    for one in ranks:
        one.set_epoch(epoch)
    lists = [list(one) for one in ranks]
    assert {len(some) for some in lists} == {len(ranks[0])}
    return list(zip(*lists, strict=True))


def source_of(sizes, index):
    return sum(index >= end for end in accumulate(sizes))


CASES = (
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.integers(1, 7),
    st.integers(1, 5),
    st.integers(0, 99),
    st.integers(0, 3),
)


@settings(deadline=None, max_examples=200)
@given(*CASES)
def test_an_epoch_shows_every_example_once_and_no_process_is_ever_empty(sizes, batch_size, world, seed, epoch):
    seen = Counter()
    for batch in epoch_of(sizes, None, batch_size, seed, world, epoch):
        lengths = [len(mine) for mine in batch]
        assert min(lengths) >= 1 and max(lengths) <= batch_size and max(lengths) - min(lengths) <= 1
        whole = [index for mine in batch for index in mine]
        assert len({source_of(sizes, index) for index in whole}) == 1
        seen.update(whole)
    for source, (start, size) in enumerate(zip([0, *accumulate(sizes)], sizes, strict=False)):
        rest = size % (batch_size * world)
        filled = max(0, world - rest) if rest else 0
        counts = [seen.pop(index) for index in range(start, start + size)]
        assert sum(counts) == size + filled and all(counts), source
    assert not seen


@settings(deadline=None, max_examples=100)
@given(*CASES, st.data())
def test_weights_are_shares_of_the_batches(sizes, batch_size, world, seed, epoch, data):
    weights = [data.draw(st.floats(0.01, 100)) for _ in sizes]
    batches = epoch_of(sizes, weights, batch_size, seed, world, epoch)
    assert len(batches) == sum(-(-size // (batch_size * world)) for size in sizes)
    drawn = Counter(source_of(sizes, batch[0][0]) for batch in batches)
    for source, weight in enumerate(weights):
        assert abs(drawn[source] - len(batches) * weight / sum(weights)) < 1 + 1e-6


def test_over_epochs_a_source_has_its_share_however_small():
    drawn = Counter(
        source_of((100, 100), batch[0][0])
        for epoch in range(200)
        for batch in epoch_of((100, 100), [0.98, 0.02], 20, epoch=epoch)  # 0.2 of 10 batches
    )
    assert 20 <= drawn[1] <= 65


def test_a_source_that_is_through_begins_again_in_another_order():
    batches = [mine for (mine,) in epoch_of((400, 10), [1, 1], 5)]
    small = [mine for mine in batches if mine[0] >= 400]
    assert len(small) == 41
    passes = [small[i] + small[i + 1] for i in range(0, 40, 2)]
    assert all(sorted(one) == list(range(400, 410)) for one in passes)
    assert len(set(map(tuple, passes))) == 20


def test_sources_and_examples_are_in_random_order_that_seed_and_epoch_alone_decide():
    sizes = (60, 40)
    first = epoch_of(sizes, None, 4)
    torch.manual_seed(1)
    random.seed(1)
    state = torch.get_rng_state()
    assert epoch_of(sizes, None, 4) == first and torch.equal(torch.get_rng_state(), state)
    assert epoch_of(sizes, None, 4, epoch=1) != first != epoch_of(sizes, None, 4, seed=1)
    of_one = [epoch_of((60,), None, 4, seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert of_one[0] != of_one[1] != of_one[2] != of_one[0]
    sources = [source_of(sizes, batch[0][0]) for batch in first]
    assert sources != sorted(sources) and sources != sorted(sources, reverse=True)
    shown = [index for (mine,) in first for index in mine if index < 60]
    assert shown != sorted(shown)


def test_a_resumed_epoch_goes_on_where_it_was():
    batches = RetrievalBatches((30, 20), [1, 3], 4, 0)
    batches.set_epoch(2)
    whole, again = list(batches), iter(batches)
    for _ in range(5):
        next(again)
    assert list(again) == whole[5:]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_see_the_batch_that_one_with_as_many_examples_sees(world):
    one = epoch_of((50, 31), None, 6 * world)
    together = epoch_of((50, 31), None, 6, world=world)
    joined = [[index for mine in batch for index in mine] for batch in together]
    assert [mine for (mine,) in one] == [batch[: len(mine)] for batch, (mine,) in zip(joined, one, strict=True)]
