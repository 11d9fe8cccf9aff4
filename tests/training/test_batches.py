"""What the model is given: which records share a chunk, what counts as known, which negatives and scores go along."""

import math
import random
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from colmrl.configure import load_config
from colmrl.data.mixture import Mixture
from colmrl.data.records import Document, Example, Examples, Query, Records, Triple
from colmrl.errors import InputError
from colmrl.models.inputs import InputBuilder
from colmrl.models.processors import load_processor
from colmrl.models.retriever import Retriever
from colmrl.training.batches import Collator, ExampleDataset, check_teacher, key
from colmrl.training.chunks import by_length, chunks_of, tokens_worth_a_pass


def examples_of(triples):
    names = dict.fromkeys(name for t in triples for name in (t.pos_id, *t.neg_ids))
    queries = Records.of([Query(name) for name in dict.fromkeys(t.query_id for t in triples)])
    return Mixture([Examples(queries, Records.of([Document(name) for name in names]), triples)])


@hypothesis_settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=60), st.integers(1, 40), st.integers(1, 2000))
def test_chunks_hold_every_record_once_within_records_and_tokens(lengths, most, tokens):
    chunks = chunks_of(lengths, most, tokens)
    assert sorted(place for chunk in chunks for place in chunk) == list(range(len(lengths)))
    for chunk in chunks:
        longest = max(lengths[place] for place in chunk)
        assert len(chunk) <= most and (len(chunk) * longest <= tokens or len(chunk) == 1)
    padded = sum(len(chunk) * max(lengths[place] for place in chunk) for chunk in chunks)
    assert padded - sum(lengths) <= 0.1 * padded
    edges = [(lengths[chunk[0]], lengths[chunk[-1]]) for chunk in chunks]
    assert all(first >= last for first, last in edges) and all(a[1] >= b[0] for a, b in pairwise(edges))


@hypothesis_settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=9), st.integers(20, 60))
def test_no_division_into_chunks_of_the_same_number_has_less_padding(lengths, tokens):
    falling = sorted(lengths, reverse=True)
    chunks = chunks_of(lengths, None, tokens)

    def least(start, count):
        """By trying every division of the records from `start` on."""
        if start == len(falling):
            return 0 if count == 0 else math.inf
        if count == 0:
            return math.inf
        ends = [end for end in range(start + 1, len(falling) + 1) if (end - start) * falling[start] <= tokens]
        return min((falling[start] * (end - start) + least(end, count - 1) for end in ends), default=math.inf)

    assert sum(len(chunk) * lengths[chunk[0]] for chunk in chunks) == least(0, len(chunks))


def test_chunks_of_a_number_of_records_are_of_like_length():
    lengths = [5, 1, 9, 5, 2, 8, 7]
    assert chunks_of(lengths, 3) == [[2, 5, 6], [0, 3, 4], [1]] and chunks_of(lengths) == [[2, 5, 6, 0, 3, 4, 1]]


@hypothesis_settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=9), st.integers(1, 200))
def test_no_division_of_a_batch_costs_less_padding_and_passes(lengths, worth):
    falling, chunks = sorted(lengths, reverse=True), by_length(lengths, worth)
    assert sorted(place for chunk in chunks for place in chunk) == list(range(len(lengths)))

    def cost(ends):
        return sum(falling[start] * (end - start) + worth for start, end in pairwise([0, *ends, len(falling)]))

    every = (ends for count in range(len(falling)) for ends in combinations(range(1, len(falling)), count))
    assert sum(len(chunk) * lengths[chunk[0]] + worth for chunk in chunks) == min(map(cost, every))


def test_a_pass_is_worth_more_padding_in_a_small_model_and_on_a_gpu():
    assert tokens_worth_a_pass(384, False) < tokens_worth_a_pass(128, False) < tokens_worth_a_pass(128, True)
    assert tokens_worth_a_pass(8192, False) == 64


@pytest.fixture
def mixed(tmp_path):
    """96 examples: texts of 3 to 120 words beside pages of many sizes, short queries."""
    rng = random.Random(0)
    words = ["red", "circle", "over", "a", "blue", "ring", "top", "left"]
    examples = []
    for number in range(96):
        text = " ".join(rng.choices(words, k=int(rng.lognormvariate(3, 0.9)) + 3))
        picture = ()
        if number % 3:
            path = tmp_path / f"{number}.png"
            Image.new("RGB", (16 * rng.randint(2, 20), 16 * rng.randint(2, 20))).save(path)
            text, picture = "", (str(path),)
        query = Query(f"q{number}", " ".join(rng.choices(words, k=rng.randint(2, 12))))
        examples.append(Example(query, Document(f"d{number}", text, images=picture)))
    return examples


def padding_of(batch):
    masks = [chunk["attention_mask"] for chunk in batch["chunks"]]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def test_a_budget_of_tokens_leaves_under_a_tenth_of_padding(mixed, tiny):
    inputs = InputBuilder(load_processor(str(tiny("qwen2_5_vl")), None, None), load_config(None).model)
    for size in (16, 32, 96):
        whole = Collator(inputs, {})(mixed[:size])
        batch = Collator(inputs, {}, None, 2048)(mixed[:size])
        assert padding_of(whole) > 0.3 and padding_of(batch) < 0.1
        sizes = [chunk["input_ids"].shape for chunk in batch["chunks"]]
        assert all(rows * length <= 2048 for rows, length in sizes) and sum(rows for rows, _ in sizes) == 2 * size
        assert len(sizes) < size / 2


def test_a_plain_step_is_on_records_of_like_length_where_that_saves_more_than_a_pass_costs(mixed, tiny):
    inputs = InputBuilder(load_processor(str(tiny("qwen2_5_vl")), None, None), load_config(None).model)
    two, some, one = (Collator(inputs, {}, pass_tokens=worth)(mixed[:32]) for worth in (None, 64, 100_000))
    assert len(two["chunks"]) == 2 < len(some["chunks"]) < 16 and len(one["chunks"]) == 1
    assert padding_of(some) < padding_of(two) / 2


@pytest.mark.parametrize("chunked", [(None, None), (5, None), (None, 400), (3, 400), (None, None, 64)])
def test_order_finds_every_record_whichever_chunk_it_is_in(chunked, mixed, settings, tmp_path):
    model = Retriever.create(settings(tmp_path / "a", family="qwen2_5_vl")).eval()
    batch = Collator(model.inputs, {}, *chunked)(mixed[:8])
    records = [*model.inputs.each_query([e.query for e in mixed[:8]])]
    records += model.inputs.each_document([e.positive for e in mixed[:8]])
    with torch.no_grad():
        together = model(*batch["chunks"]).select(batch["order"])
        for i, record in enumerate(records):
            assert torch.allclose(together.single[i], model(record).single[0], atol=1e-5)
    assert chunked != (5, None) or sorted(len(c["input_ids"]) for c in batch["chunks"]) == [3, 3, 5, 5]


def test_candidates_negatives_and_known_answers_are_named_as_the_examples_say(checkpoint):
    inputs = Retriever.load(checkpoint).inputs
    a, b, c = (Document(name, text=name) for name in "abc")
    examples = [Example(Query("1", "x"), a, (c,)), Example(Query("2", "y"), b, (a, c)), Example(Query("3", "z"), c)]
    batch = Collator(inputs, {"1": {"a", "b"}, "2": {"b"}})(examples)
    assert batch["candidates"].tolist() == [key(name) for name in "abccac"]
    assert int(batch["queries"]) == 3 and len(batch["order"]) == 9
    assert batch["negatives"].tolist() == [[3, -1], [4, 5], [-1, -1]]
    assert [set(row) - {-1} for row in batch["known"].tolist()] == [{key("a"), key("b")}, {key("b")}, set()]
    assert batch["teacher"].isnan().all() and batch["teacher"].shape == (3, 3)


def test_negatives_are_drawn_anew_each_epoch_and_the_same_for_a_seed():
    examples = examples_of([Triple("q", "p", tuple(str(i) for i in range(20)))])
    dataset = ExampleDataset(examples, 3, seed=0)
    draws = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        draws.append([n.id for n in dataset[0].negatives])
    assert draws[0] == draws[2] != draws[1] and len(set(draws[0])) == 3
    assert [n.id for n in ExampleDataset(examples, 3, seed=1)[0].negatives] != draws[0]


def test_a_teachers_scores_go_with_the_negatives_that_were_drawn(checkpoint):
    scores = {f"n{i}": i / 100 for i in range(20)}
    triples = [Triple("1", "p", tuple(scores), 0.9, tuple(scores.values())), Triple("2", "r", ("n3", "n4"))]
    triples += [Triple("3", "s", ("n7",), None, (0.5,)), Triple("4", "t", (), 0.75)]
    dataset = ExampleDataset(examples_of(triples), 4, seed=0)
    for epoch in range(3):
        dataset.set_epoch(epoch)
        first, second, third, fourth = (dataset[i] for i in range(4))
        assert first.scores == (0.9, *(scores[n.id] for n in first.negatives)) and len(first.scores) == 5
        assert second.scores is None and third.scores[1:] == (0.5,) and math.isnan(third.scores[0])
        assert fourth.scores == (0.75,)
    shown = [
        Example(Query(e.query.id, "x"), Document("p", "y"), tuple(Document(n.id, "z") for n in e.negatives), e.scores)
        for e in (first, second, third, fourth)
    ]
    teacher = Collator(Retriever.load(checkpoint).inputs, {})(shown)["teacher"]
    expected = torch.full((4, 5), math.nan)
    expected[0], expected[2, 1], expected[3, 0] = torch.tensor(first.scores), 0.5, 0.75
    assert torch.equal(teacher.isnan(), expected.isnan()) and torch.equal(teacher.nan_to_num(), expected.nan_to_num())


def test_a_teacher_without_scores_is_said():
    known = examples_of([Triple("1", "p", ("n",), 0.9, (0.5,)), Triple("2", "p", ("n",))])
    for of_positive, of_negatives in ((None, None), (0.9, None), (None, (0.5,))):
        lacking = examples_of([Triple("1", "p", ("n",), of_positive, of_negatives), Triple("2", "p")])
        for name in ("teacher_kl", "teacher_margin_mse"):
            config = load_config(None, [f"loss.{name}=0.5"])
            with pytest.raises(InputError, match=rf"loss\.{name}: no example has a score"):
                check_teacher(config, lacking, 1)
            with pytest.raises(InputError, match=r"train\.negatives: 0"):
                check_teacher(config, known, 0)
            check_teacher(config, known, 1)
        check_teacher(load_config(None), lacking, 0)
