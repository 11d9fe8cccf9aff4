"""What a listwise reranker is trained on, and its loss."""

import json
import math
import random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from colmrl.config import DataConfig, ShowConfig
from colmrl.configure import load_config
from colmrl.data.mixture import Mixture
from colmrl.data.reading import read_training
from colmrl.data.records import Document, Examples, Query, Records, Triple
from colmrl.data.sequences_sample import write_sequences_sample
from colmrl.errors import InputError
from colmrl.losses.ranknet import weighted_ranknet
from colmrl.reranking.listwise import ListwiseReranker
from colmrl.reranking.prompt import join
from colmrl.reranking.readings import reading_layer
from colmrl.training import rerank_listwise
from colmrl.training.rerank_listwise import Choices, Collator, beside, labels_of, shortened

LISTWISE = ["task=listwise", "device=cpu"]
DOCUMENTS = Records.of([Document(f"d{i}", f"red circle {i}") for i in range(30)])
QUERIES = Records.of([Query("q0", "red"), Query("q1", "blue")])


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ring") / "data"
    write_sequences_sample(folder, users=15, items=40)
    return folder


def of_users(ring, seed=0, history=20, candidates=20):
    mixture, positives = read_training(DataConfig(path=str(ring)), ShowConfig(history=history))
    return Choices(mixture, positives, candidates, seed, [True])


def sequences_of(ring):
    return {line.split()[0]: line.split()[1:] for line in (ring / "user_sequence.txt").read_text().splitlines()}


def test_each_user_is_split_once_an_epoch_history_before_and_target_at(ring):
    had, data = sequences_of(ring), of_users(ring, candidates=2)
    assert len(data) == len(had) == sum(data.sizes)
    seen = set()
    for epoch in range(100):
        data.set_epoch(epoch)
        for i, user in enumerate(had):
            choice = data[i]
            owner, _, place = choice.query.id.rpartition("/")
            assert owner == user and 1 <= int(place) <= len(had[user]) - 3  # the last two are held out
            target = choice.documents[choice.label]
            assert target.id == had[user][int(place)]
            assert choice.query.meta["history"] == had[user][: int(place)]
            seen.add((user, int(place)))
    assert seen == {(user, place) for user, items in had.items() for place in range(1, len(items) - 2)}


def test_the_rest_of_a_list_is_random_items_that_the_user_has_not_had_and_the_target_stands_anywhere(ring):
    data, labels = of_users(ring), []
    for epoch in range(20):
        data.set_epoch(epoch)
        for i in range(len(data)):
            choice = data[i]
            names = [document.id for document in choice.documents]
            assert len(set(names)) == 20 and not set(names) & set(choice.query.meta["history"])
            labels.append(choice.label)
    counts = np.bincount(labels, minlength=20)
    expected = len(labels) / 20
    assert ((counts - expected) ** 2 / expected).sum() < 43.8  # chi-square, 19 degrees of freedom, 0.1%


def test_a_list_depends_on_seed_epoch_and_index_alone(ring):
    one, again, other = of_users(ring), of_users(ring), of_users(ring, seed=1)
    assert one[3] == again[3] != other[3]
    for data in (one, again):
        data.set_epoch(2)
    assert one[3] == again[3]
    before = one[3]
    one.set_epoch(3)
    assert one[3] != before


def test_a_history_shows_as_many_items_as_it_is_told(ring):
    data = of_users(ring, history=2)
    for i in range(len(data)):
        shown = data[i].query.text.splitlines()[1:]
        assert len(shown) == min(2, len(data[i].query.meta["history"]))


def test_hard_negatives_come_first_and_random_ones_fill_up_and_known_answers_are_neither():
    triples = [Triple("q0", "d0", ("d1", "d2", "d3"), 0.9, (0.5, 0.4, 0.3)), Triple("q1", "d4", ("d5",), 0.8, (0.7,))]
    mixture = Mixture([Examples(QUERIES, DOCUMENTS, triples)])
    data = Choices(mixture, {"q0": {"d0", "d2", "d9"}, "q1": {"d4"}}, 6, 0, [False])
    drawn = set()
    for epoch in range(50):
        data.set_epoch(epoch)
        choice = data[0]
        names = [document.id for document in choice.documents]
        assert {"d0", "d1", "d3"} <= set(names) and not {"d2", "d9"} & set(names) and len(set(names)) == 6
        scores = dict(zip(names, choice.scores, strict=True))
        assert (scores["d0"], scores["d1"], scores["d3"]) == (0.9, 0.5, 0.3)
        assert all(math.isnan(scores[name]) for name in set(names) - {"d0", "d1", "d3"})
        assert names[choice.label] == "d0"
        drawn |= set(names)
    assert len(drawn) > 20
    few = Choices(mixture, {"q0": {"d0"}, "q1": {"d4"}}, 6, 0, [False], hard=1)
    assert all(len({d.id for d in few[0].documents} & {"d1", "d2", "d3"}) >= 1 for _ in range(3))


def test_a_small_corpus_gives_short_lists():
    few = Records.of([DOCUMENTS[i] for i in range(4)])
    data = Choices(Mixture([Examples(QUERIES, few, [Triple("q0", "d0")])]), {"q0": {"d0", "d1"}}, 20, 0, [False])
    assert {document.id for document in data[0].documents} == {"d0", "d2", "d3"}


def test_random_documents_of_several_data_sets_are_of_the_examples_own():
    other = Records.of([Document(f"e{i}", "x") for i in range(10)])
    mixture = Mixture(
        [Examples(QUERIES, DOCUMENTS, [Triple("q0", "d0")]), Examples(QUERIES, other, [Triple("q0", "e0")])]
    )
    data = Choices(mixture, {"0:q0": {"0:d0"}, "1:q0": {"1:e0", "1:e1"}}, 8, 0, [False, False])
    assert data.sizes == [1, 1]
    assert all(document.id.startswith("0:d") for document in data[0].documents)
    names = {document.id for document in data[1].documents}
    assert len(names) == 8 and all(name.startswith("1:e") for name in names) and "1:e1" not in names


def test_random_documents_give_way_to_other_lists_right_ones_unless_those_answer_it_too_or_are_there():
    triples = [Triple("q0", "d0", ("d1", "d2")), Triple("q1", "d4", ("d5",))]
    data = Choices(Mixture([Examples(QUERIES, DOCUMENTS, triples)]), {"q0": {"d0", "d9"}, "q1": {"d4"}}, 6, 0, [False])
    choice = data[0]
    names = [document.id for document in choice.documents]
    assert {names[i] for i in choice.spare} == set(names) - {"d0", "d1", "d2"} and len(choice.spare) == 3
    others = [DOCUMENTS[i] for i in (9, 1, 7, 7, 0)]  # an answer, one that is there, a new one twice, the right one
    others = [one for one in others if one.id not in {names[i] for i in choice.spare}]
    changed = [document.id for document in beside(choice, others).documents]
    swapped = [i for i, (one, other) in enumerate(zip(names, changed, strict=True)) if one != other]
    if "d7" in names:
        assert changed == names
    else:
        assert swapped == [choice.spare[0]] and changed[swapped[0]] == "d7"
    many = beside(choice, [DOCUMENTS[i] for i in range(10, 30)]).documents
    assert len({document.id for document in many}) == 6 and {"d0", "d1", "d2"} <= {document.id for document in many}
    assert many[choice.label].id == "d0" and not {many[i].id for i in choice.spare} & set(names)


def test_a_batch_shows_other_lists_right_documents_and_of_sequences_the_random_items(made, ring):
    data = Choices(Mixture([Examples(QUERIES, DOCUMENTS, [Triple("q0", "d0"), Triple("q1", "d4")])]), {}, 3, 0, [False])
    reranker = made()
    text = reranker.prompts.prompts.tokenizer.batch_decode(
        Collator(reranker.prompts, ranked=False)([data[0], data[1]])["inputs"]["input_ids"]
    )
    assert all(f"] {DOCUMENTS[i].text}\n" in one for one in text for i in (0, 4))
    assert not any(of_users(ring)[i].spare for i in range(15))


@pytest.fixture(scope="module")
def made(tiny):
    def make(identifiers="letters", padding="left", *more):
        settings = ["task=listwise", f"model.backbone={tiny('qwen3')}", "device=cpu", "rerank.candidates=20"]
        settings += [f"rerank.identifiers={identifiers}", f"model.padding_side={padding}"]
        return ListwiseReranker.create(load_config(None, [*settings, *more])).eval()

    return make


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("identifiers", ["letters", "numbers"])
def test_labels_are_the_answers_tokens_and_minus_100_elsewhere(made, ring, identifiers, padding):
    reranker, data = made(identifiers, padding), of_users(ring)
    choices = [data[i] for i in range(8)]
    batch = Collator(reranker.prompts, ranked=False)(choices)
    ids, labels, mask = batch["inputs"]["input_ids"], batch["labels"], batch["inputs"]["attention_mask"].bool()
    assert len({int(n) for n in mask.sum(1)}) > 1  # there is padding
    for row, choice in zip(range(8), choices, strict=True):
        answer = reranker.prompts.identifiers.answers[choice.label]
        taught = labels[row] != -100
        assert labels[row][taught].tolist() == list(answer)
        assert ids[row][mask[row]].tolist()[-len(answer) :] == list(answer)
        assert torch.equal(
            taught[mask[row]].nonzero()[:, 0], torch.arange(len(answer)) + int(mask[row].sum()) - len(answer)
        )


def test_labels_of_a_hand_worked_batch():
    inputs = {"input_ids": torch.tensor([[0, 0, 5, 6, 7], [1, 2, 3, 4, 8], [9, 5, 6, 0, 0]])}
    inputs["attention_mask"] = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    n = -100
    assert labels_of(inputs, [1, 2, 2]).tolist() == [[n, n, n, n, 7], [n, n, n, 4, 8], [n, 5, 6, n, n]]


@pytest.mark.parametrize("identifiers", ["letters", "numbers"])
def test_the_loss_is_the_librarys_own_cross_entropy_on_the_answers(made, ring, identifiers, tiny):
    reranker, data = made(identifiers), of_users(ring)
    config = load_config(None, ["task=listwise"])
    library = AutoModelForCausalLM.from_pretrained(tiny("qwen3"), dtype=torch.float32).eval()
    wanted = []
    for i in range(3):
        batch = Collator(reranker.prompts, ranked=False)([data[i]])
        with torch.no_grad():
            mean = library(**batch["inputs"], labels=batch["labels"]).loss
        wanted.append(mean * (batch["labels"] != -100).sum())  # theirs is a mean over tokens, ours of whole answers
    with torch.no_grad():
        batch = Collator(reranker.prompts, ranked=False)([data[i] for i in range(3)])
        found = rerank_listwise.compute_loss(config, reranker, batch)
    torch.testing.assert_close(found, torch.stack(wanted).mean(), rtol=1e-4, atol=1e-4)


def test_what_is_read_off_a_candidate_is_the_mean_over_its_tokens(tiny):
    torch.manual_seed(0)
    settings = [*LISTWISE, f"model.backbone={tiny('qwen3')}", "rerank.relevance=1"]
    model = ListwiseReranker.create(load_config(None, settings))
    reader = model.relevance
    assert reader is not None and reading_layer(model.language) == 2
    hidden = torch.randn(2, 5, reader.read.in_features)
    found = reader(hidden, torch.tensor([[0, 1, 1, 2, 0], [0, 0, 1, 0, 0]]))
    each = (hidden @ reader.read.weight[0]).tolist()
    wanted = [[(each[0][1] + each[0][2]) / 2, each[0][3]], [each[1][2], -math.inf]]
    torch.testing.assert_close(found, torch.tensor(wanted))


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("identifiers", ["letters", "numbers"])
def test_the_loss_with_relevance_is_the_answers_and_the_candidates_own(made, ring, identifiers, padding, tiny):
    """The library's hidden states after the second of three layers, candidates found by reading the prompt."""
    reranker, data = made(identifiers, padding, "rerank.relevance=0.5"), of_users(ring, candidates=12)
    choices = [data[i] for i in range(3)]
    batch = Collator(reranker.prompts, ranked=False)(choices)
    plain = rerank_listwise.compute_loss(load_config(None, ["task=listwise"]), made(identifiers, padding), batch)
    library, costs = AutoModelForCausalLM.from_pretrained(tiny("qwen3"), dtype=torch.float32).eval(), []
    tokenizer = reranker.prompts.prompts.tokenizer
    for row, choice in enumerate(choices):
        ids = batch["inputs"]["input_ids"][row][batch["inputs"]["attention_mask"][row].bool()]
        hidden = library(ids[None], output_hidden_states=True).hidden_states[2][0]
        each = torch.nn.functional.rms_norm(hidden, hidden.shape[-1:]) @ reranker.relevance.read.weight[0]
        texts, scores = [tokenizer.decode(ids[:i]) for i in range(len(ids) + 1)], []
        for name, document in zip(reranker.prompts.identifiers.names, choice.documents, strict=False):
            said = f"[{name}] {document.body}\n"
            start, end = (texts.index(texts[-1][: texts[-1].index(said) + cut]) for cut in (0, len(said)))
            scores.append(each[start:end].mean())
        costs.append(torch.nn.functional.cross_entropy(torch.stack(scores), torch.tensor(choice.label)))
    config = load_config(None, ["task=listwise", "rerank.relevance=0.5"])
    found = rerank_listwise.compute_loss(config, reranker, batch)
    torch.testing.assert_close(found, plain + 0.5 * torch.stack(costs).mean(), rtol=1e-4, atol=1e-4)
    found.backward()
    assert reranker.relevance.read.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("identifiers", ["letters", "numbers"])
def test_with_a_known_order_the_loss_is_cross_entropy_and_weighted_ranknet(made, identifiers):
    reranker = made(identifiers)
    scores = tuple(1 - 0.05 * i for i in range(14))
    triple = Triple("q0", "d0", tuple(f"d{i}" for i in range(1, 14)), scores[0], scores[1:])
    data = Choices(Mixture([Examples(QUERIES, DOCUMENTS, [triple] * 2)]), {"q0": {"d0"}}, 14, 0, [False])
    choices, config = [data[0], data[1]], load_config(None, ["task=listwise", "rerank.ranknet=0.7"])
    plain = rerank_listwise.compute_loss(config, reranker, Collator(reranker.prompts, ranked=False)(choices))
    batch = Collator(reranker.prompts, ranked=True)(choices)
    ranked = rerank_listwise.compute_loss(config, reranker, batch)
    likely, *_ = reranker(batch["inputs"], candidates=14)
    expected = plain + 0.7 * weighted_ranknet(likely, batch["teacher"])
    torch.testing.assert_close(ranked, expected, rtol=1e-4, atol=1e-4)
    reranker.zero_grad()
    gradient = [torch.autograd.grad(loss, list(reranker.parameters())) for loss in (ranked, expected)]
    for one, other in zip(*gradient, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_relevance_comes_on_top_of_ranknet_and_where_it_cannot_be_is_said(made, monkeypatch):
    reranker = made("letters", "left", "rerank.relevance=0.5")
    triple = Triple("q0", "d0", tuple(f"d{i}" for i in range(1, 14)), 1.0, tuple(0.9 - 0.05 * i for i in range(13)))
    data = Choices(Mixture([Examples(QUERIES, DOCUMENTS, [triple] * 2)]), {"q0": {"d0"}}, 14, 0, [False])
    losses = {}
    for ranknet in (0, 0.7):
        batch = Collator(reranker.prompts, ranked=ranknet > 0)([data[0], data[1]])
        for relevance in (0, 0.5):
            config = load_config(None, [*LISTWISE, f"rerank.ranknet={ranknet}", f"rerank.relevance={relevance}"])
            losses[ranknet, relevance] = rerank_listwise.compute_loss(config, reranker, batch).item()
    assert losses[0.7, 0.5] - losses[0.7, 0] == pytest.approx(losses[0, 0.5] - losses[0, 0], abs=1e-4)
    assert losses[0.7, 0] > losses[0, 0] + 0.01
    for more, said in {
        (
            "rerank.identifiers=numbers",
            "rerank.relevance=1",
        ): "rerank.relevance, rerank.ranknet: not together on numbers",
        ("rerank.answer=relevance", "rerank.relevance=1"): "rerank.ranknet: orders answers by identifier",
    }.items():
        monkeypatch.setattr(rerank_listwise, "read_training", lambda *_: (data.examples, data.positives))
        with pytest.raises(InputError, match=said):
            rerank_listwise.examples(load_config(None, [*LISTWISE, "rerank.ranknet=1", *more]))
    with pytest.raises(InputError, match=r"rerank.answer: relevance: is learnt by rerank.relevance alone"):
        made("letters", "left", "rerank.answer=relevance")


def test_a_relevance_answer_is_trained_by_the_candidates_loss_alone_and_kept_with_what_reads_it(made, ring, tmp_path):
    from colmrl.reranking.reranker import open_reranker

    reranker, data = made("letters", "left", "rerank.answer=relevance", "rerank.relevance=1"), of_users(ring)
    config = load_config(None, [*LISTWISE, "rerank.answer=relevance", "rerank.relevance=1"])
    batch = Collator(reranker.prompts, ranked=False)([data[i] for i in range(3)])
    _, relevance, *_ = reranker(batch["inputs"], labels=batch["labels"])
    wanted = torch.nn.functional.cross_entropy(relevance, batch["target"])
    torch.testing.assert_close(rerank_listwise.compute_loss(config, reranker, batch), wanted)
    reranker.save(tmp_path / "kept" / "checkpoint")
    scores = open_reranker(tmp_path / "kept" / "checkpoint").score(data[0].query, data[0].documents)
    alone = Collator(reranker.prompts, ranked=False)([data[0]])
    with torch.no_grad():
        likely = reranker(alone["inputs"], labels=alone["labels"]).relevance[0].softmax(0)
    np.testing.assert_allclose(scores, likely, rtol=2e-4)  # read behind the opening's keys and values


def test_a_model_trained_with_both_answers_either_way_in_use(made, ring, tmp_path):
    from colmrl.config import RerankConfig
    from colmrl.reranking.reranker import open_reranker

    reranker, data = made("letters", "left", "rerank.relevance=1"), of_users(ring)
    reranker.save(tmp_path / "kept" / "checkpoint")
    alone = Collator(reranker.prompts, ranked=True)([data[0]])
    with torch.no_grad():
        likely, relevance, *_ = reranker(alone["inputs"], candidates=20)
    for config, wanted in (
        (RerankConfig(), likely),
        (RerankConfig(answer="identifier"), likely),
        (RerankConfig(answer="relevance"), relevance),
    ):
        opened = open_reranker(tmp_path / "kept" / "checkpoint", config)
        np.testing.assert_allclose(opened.score(data[0].query, data[0].documents), wanted[0].softmax(0), rtol=2e-4)


def test_short_lists_keep_the_right_document_and_all_of_a_batch_are_as_long(made, ring):
    reranker, data, lengths = made(), of_users(ring), set()
    for first in range(12):
        choices = [data[first], data[first + 1]]
        batch = Collator(reranker.prompts, ranked=True, short=True)(choices)
        again = Collator(reranker.prompts, ranked=True, short=True)(choices)
        assert torch.equal(batch["inputs"]["input_ids"], again["inputs"]["input_ids"])
        assert batch["inputs"]["candidate"].amax(1).tolist() == [batch["candidates"]] * 2
        lengths.add(batch["candidates"])
    assert {2, 20} <= lengths <= {2, 3, 5, 10, 20}
    choice = data[0]
    for size in (2, 5):
        short = shortened(choice, size, random.Random(0))
        assert short.documents[short.label] == choice.documents[choice.label] and len(short.documents) == size
        places = [choice.documents.index(document) for document in short.documents]
        assert places == sorted(set(places))


def test_ranknet_without_scores_is_refused(ring, tiny):
    base = ["task=listwise", f"model.backbone={tiny('qwen3')}", f"data.path={ring}", "rerank.ranknet=1"]
    with pytest.raises(InputError, match=r"rerank.ranknet: no example has a score"):
        rerank_listwise.examples(load_config(None, base))


def test_a_run_trains_is_judged_each_epoch_and_leaves_a_checkpoint(ring, tiny, tmp_path):
    from colmrl.reranking.reranker import open_reranker
    from colmrl.training.run import train

    settings = ["task=listwise", f"model.backbone={tiny('qwen3')}", f"data.path={ring}", f"output={tmp_path / 'run'}"]
    settings += ["train.epochs=2", "train.batch_size=8", "train.best_metric=ndcg_at_10", "rerank.queries=3"]
    settings += ["rerank.identifiers=numbers", "rerank.candidates=5", "rerank.sampled=4", "device=cpu", "threads=1"]
    settings += ["rerank.relevance=1"]
    folder = train(load_config(None, settings))
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    judged = [line for line in lines if "eval_ndcg_at_10" in line]
    assert len(judged) == 2 and any("kept_epoch" in line for line in lines)
    reranker = open_reranker(folder)
    scores = reranker.score(QUERIES[0], DOCUMENTS[:5])
    assert scores.sum() == pytest.approx(1, abs=1e-5)


def test_prompts_in_training_and_in_use_are_the_same(made, ring):
    reranker, data = made(), of_users(ring)
    choice = data[0]
    batch = Collator(reranker.prompts, ranked=True)([choice])
    used = join([reranker.prompts.opening(choice.query), reranker.prompts.candidates(choice.documents)])
    assert torch.equal(batch["inputs"]["input_ids"], used["input_ids"])
    with torch.inference_mode():
        likely = reranker(batch["inputs"], candidates=len(choice.documents))[0][0].softmax(0)
    np.testing.assert_allclose(reranker.score(choice.query, choice.documents), likely, rtol=2e-4)


@pytest.mark.parametrize("family", ["internvl", "qwen3_vl"])
def test_pictures_are_in_the_prompt_and_batch_mates_do_not_change_the_loss(family, ring, tiny):
    settings = ["task=listwise", f"model.backbone={tiny(family)}", "device=cpu", "rerank.candidates=4"]
    config = load_config(None, [*settings, f"data.path={ring}", "show.item_form=raw_image", "show.history=2"])
    reranker, data = ListwiseReranker.create(config).eval(), rerank_listwise.examples(config)
    collate = rerank_listwise.collator(config, reranker)
    choices = [data[i] for i in range(3)]
    shown = [len(choice.query.images) + sum(len(d.images) for d in choice.documents) for choice in choices]
    assert {2 < n <= 6 for n in shown} == {True} and len(set(shown)) > 1
    with torch.no_grad():
        alone = [rerank_listwise.compute_loss(config, reranker, collate([choice])) for choice in choices]
        together = rerank_listwise.compute_loss(config, reranker, collate(choices))
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-4, atol=1e-4)
