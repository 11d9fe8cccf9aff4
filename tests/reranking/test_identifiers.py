"""Names of candidates, and the trie that scores them."""

import math
import random

import pytest
import torch
from transformers import AutoTokenizer

from colmrl.errors import InputError
from colmrl.reranking.identifiers import Identifiers, Trie


@pytest.fixture(scope="module")
def tokenizer(tiny):
    return AutoTokenizer.from_pretrained(tiny("qwen3"))


def brute_force(answers, log_probability):
    """Every answer by itself: the product of its tokens' probabilities, each after all tokens before it."""
    return [sum(log_probability(tuple(answer[:i]))[answer[i]].item() for i in range(len(answer))) for answer in answers]


def test_the_trie_scores_answers_of_any_length_as_one_after_another_would():
    draw = torch.Generator().manual_seed(0)
    made: dict[tuple, torch.Tensor] = {}

    def logits(path):
        return made.setdefault(path, torch.randn(7, generator=draw))

    answers = [(1, 6), (1, 2, 6), (1, 2, 3, 6), (2, 6), (1, 3, 6), (4, 6)]
    trie = Trie.of(answers)
    paths: list[tuple[int, ...]] = [()]
    for token, parent in zip(trie.tokens, trie.parents, strict=True):
        paths.append(paths[parent + 1] + (token,))
    assert len(set(paths)) == len(paths) == 1 + 6  # (), 1, 2, 4, 12, 13, 123
    scored = trie.log_likelihoods(torch.stack([logits(path) for path in paths])[None])[0]
    wanted = brute_force(answers, lambda path: logits(path).log_softmax(-1))
    assert scored.tolist() == pytest.approx(wanted, abs=1e-5)


def test_a_node_sees_itself_and_its_ancestors_alone():
    trie = Trie.of([(1, 9), (1, 2, 9), (1, 2, 3, 9), (2, 9)])
    nodes = {}
    for i, (token, parent) in enumerate(zip(trie.tokens, trie.parents, strict=True)):
        nodes[i] = (*nodes.get(parent, ()), token)
    for i, path in nodes.items():
        assert trie.depths[i] == len(path)
        for j, other in nodes.items():
            assert bool(trie.sees[i, j]) == (path[: len(other)] == other)


def test_letters_need_no_second_step_and_numbers_end():
    letters = Trie.of([(5,), (6,), (7,)])
    assert letters.tokens == () and letters.sees.shape == (0, 0)


def test_numbers_share_their_first_digit_and_end_so_that_1_is_not_12(tokenizer):
    numbers = Identifiers.of("numbers", 20, tokenizer)
    assert numbers.names == tuple(map(str, range(1, 21)))
    assert list(numbers.answers) == [(*shown, tokenizer.eos_token_id) for shown in numbers.shown]
    assert [tokenizer.decode(shown) for shown in numbers.shown] == list(numbers.names)
    assert not any(
        a != b and b[: len(a)] == a for a in numbers.answers for b in numbers.answers
    )  # none is the beginning of another
    assert len(numbers.trie(20).tokens) == 20 and len(numbers.trie(9).tokens) == 9


def test_letters_are_one_token_each(tokenizer):
    letters = Identifiers.of("letters", 26, tokenizer)
    assert [tokenizer.decode(answer) for answer in letters.answers] == list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert all(len(answer) == 1 for answer in letters.answers) and letters.trie(26).tokens == ()
    with pytest.raises(InputError, match=r"rerank.candidates: 27: there are 26 letters"):
        Identifiers.of("letters", 27, tokenizer)


def test_a_tokenizer_that_cuts_letters_is_refused():
    class Cutting:
        eos_token_id = 0

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [1, ord(text)]}

    with pytest.raises(InputError, match=r"rerank.identifiers: letters: 'A' is several tokens"):
        Identifiers.of("letters", 3, Cutting())


def test_likelihoods_of_all_numbers_are_at_most_one_in_all():
    """They are of different texts: what is left is of texts that are no identifier."""
    rng = random.Random(0)
    answers = [(*map(int, str(i)), 10) for i in range(1, 21)]
    trie = Trie.of(answers)
    logits = torch.tensor([[[rng.gauss(0, 3) for _ in range(12)] for _ in range(1 + len(trie.tokens))]])
    total = trie.log_likelihoods(logits).exp().sum().item()
    assert 0 < total < 1 and math.isfinite(total)
