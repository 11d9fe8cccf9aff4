"""What a listwise model is taught beside its answer: which candidate a token is of, and where the answer looks."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from colmrl.configure import load_config
from colmrl.data.records import Document, Query
from colmrl.data.sequences import read_sequences
from colmrl.data.sequences_sample import write_sequences_sample
from colmrl.errors import InputError
from colmrl.models.watching import Watched
from colmrl.reranking.listwise import ListwiseReranker
from colmrl.reranking.readings import Naming, looks_elsewhere
from colmrl.training import rerank_listwise
from colmrl.training.rerank_listwise import Choice, Collator

FAMILIES = ["qwen3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl"]
TEXTS = [Document(f"d{i}", text) for i, text in enumerate(["red circle", "blue star and green ring", "cyan", "yellow"])]
QUERY = Query("q", "red star")
UNKNOWN = (float("nan"),) * 4


def config_of(backbone, *more):
    return load_config(None, ["task=listwise", "device=cpu", f"model.backbone={backbone}", *more])


def batch_of(reranker, ranked=False):
    """Lists of four and of three, the answers at 2 and 0."""
    lists = [Choice(QUERY, tuple(TEXTS), 2, UNKNOWN), Choice(Query("r", "blue"), tuple(TEXTS[:3]), 0, UNKNOWN[:3])]
    return Collator(reranker.prompts, ranked)(lists)


@pytest.mark.parametrize("family", FAMILIES)
def test_watching_gives_the_librarys_attention_and_changes_no_hidden_state(family, tiny, tmp_path):
    reranker = ListwiseReranker.create(config_of(tiny(family), "model.padding_side=left")).eval()
    write_sequences_sample(tmp_path / "data", users=6, items=16)
    form = "text" if family == "qwen3" else "raw_image"
    collection, prompts = read_sequences(tmp_path / "data", item_form=form, history=2), reranker.prompts
    shown = [prompts.marked(collection.documents[:n], prompts.opening(collection.queries[n])) for n in (2, 4)]
    inputs = {name: part for name, part in prompts.join(shown).items() if name != "candidate"}
    language, rows, places = reranker.language, torch.tensor([0, 1, 1]), torch.tensor([-1, -1, -5])
    places = inputs["input_ids"].shape[1] + places
    with torch.no_grad():
        with language.watching(2) as watched:
            hidden, _ = language.hidden(inputs)
        torch.testing.assert_close(hidden, language.hidden(inputs)[0], rtol=0, atol=0)
        language.model.set_attn_implementation("eager")
        eager = language.model.base_model(**language.given(inputs), output_attentions=True).attentions[2]
    torch.testing.assert_close(watched.weights(rows, places), eager[rows, :, places], rtol=1e-4, atol=1e-5)


def test_without_a_mask_what_is_watched_is_causal():
    torch.manual_seed(0)
    query, key = torch.randn(1, 4, 5, 8), torch.randn(1, 2, 5, 8)
    found = Watched(0, query, key, None, 0.5).weights(torch.tensor([0, 0]), torch.tensor([2, 4]))
    logits = 0.5 * query @ key.repeat_interleave(2, 1).transpose(2, 3)
    torch.testing.assert_close(found[0, :, :3], logits[0, :, 2, :3].softmax(-1))
    assert found[0, :, 3:].abs().sum() == 0 and found.sum(-1) == pytest.approx(torch.ones(2, 4))


def test_looking_elsewhere_costs_what_the_right_candidate_does_not_get_and_each_list_counts_once():
    class Seen(Watched):
        def weights(self, rows, places):
            heads = torch.tensor([[[0.1, 0.2, 0.3, 0.4], [0.1, 0.4, 0.1, 0.4]]]).expand(3, -1, -1)
            assert rows.tolist() == [0, 0, 1] and places.tolist() == [3, 3, 3]
            return heads

    candidate = torch.tensor([[0, 1, 2, 2], [0, 0, 1, 1]])
    rows, places = torch.tensor([0, 0, 1]), torch.tensor([3, 3, 3])
    found = looks_elsewhere(Seen(2), rows, places, candidate, torch.tensor([0, 0]))
    torch.testing.assert_close(found, -(torch.tensor(0.3).log() + torch.tensor(0.6).log()) / 2)


@pytest.mark.parametrize("identifiers", ["letters", "numbers"])
@pytest.mark.parametrize("padding", ["left", "right"])
def test_the_loss_is_the_plain_one_and_what_is_asked_for_on_top(tiny, identifiers, padding):
    """Attention as the library's own, of its last layer, from the tokens that precede the answer's."""
    common = (tiny("qwen3"), f"rerank.identifiers={identifiers}", f"model.padding_side={padding}")
    plain_config, config = config_of(*common), config_of(*common, "rerank.naming=0.5", "rerank.attention=0.3")
    plain, reranker = (ListwiseReranker.create(each) for each in (plain_config, config))
    batch = batch_of(reranker)
    wanted = rerank_listwise.compute_loss(plain_config, plain, batch)
    found = rerank_listwise.compute_loss(config, reranker, batch)
    inputs, candidate = dict(batch["inputs"]), batch["inputs"]["candidate"]
    del inputs["candidate"]
    library = plain.language.model
    library.set_attn_implementation("eager")
    output = library.base_model(**plain.language.given(inputs), output_attentions=True, output_hidden_states=True)
    within = F.rms_norm(output.hidden_states[2], output.hidden_states[2].shape[-1:])
    assert reranker.naming is not None
    names = [reranker.naming.read(within[row, i])[None] for row, i in (candidate > 0).nonzero().tolist()]
    naming = F.cross_entropy(torch.cat(names), candidate[candidate > 0] - 1)
    looks = []
    for row, target in enumerate(batch["target"].tolist()):
        said = (batch["labels"][row] != -100).nonzero()[:, 0] - 1
        to_right = output.attentions[2][row][:, said][:, :, candidate[row] == target + 1]
        looks.append(-to_right.sum(2).mean(0).log().mean())
    torch.testing.assert_close(found, wanted + 0.5 * naming + 0.3 * torch.stack(looks).mean(), rtol=1e-4, atol=1e-4)


def test_with_ranknet_the_prompts_last_token_is_what_looks(tiny):
    common = (tiny("qwen3"), "rerank.ranknet=1")
    configs = [config_of(*common, f"rerank.attention={weight}") for weight in (0, 0.5)]
    rerankers = [ListwiseReranker.create(each) for each in configs]
    batch = batch_of(rerankers[1], ranked=True)
    batch["teacher"] = torch.tensor([[0.1, 0.2, 0.9, 0.3], [0.8, 0.1, 0.2, float("nan")]])
    plain, more = (rerank_listwise.compute_loss(*each, batch) for each in zip(configs, rerankers, strict=True))
    answered = batch_of(rerankers[1])
    looks = rerankers[1](answered["inputs"], answered["labels"], target=answered["target"]).attention
    torch.testing.assert_close(more - plain, 0.5 * looks, rtol=1e-3, atol=1e-4)


def test_gradients_are_the_same_where_activations_are_computed_anew(tiny):
    config, found = config_of(tiny("qwen3"), "rerank.attention=1", "rerank.naming=1"), []
    for again in (False, True):
        reranker = ListwiseReranker.create(config).train()
        if again:
            reranker.language.checkpoint_gradients()
        rerank_listwise.compute_loss(config, reranker, batch_of(reranker)).backward()
        found.append([parameter.grad for parameter in reranker.language.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_answer_learns_to_look_at_the_right_candidate(tiny):
    """One batch by heart: attention to what is right rises with the loss on it, far less without."""
    shares = {}
    for weight in (0, 1):
        config = config_of(tiny("qwen3"), f"rerank.attention={weight}")
        reranker = ListwiseReranker.create(replace(config, rerank=replace(config.rerank, attention=1.0)))
        optimizer, batch = torch.optim.AdamW(reranker.parameters(), lr=1e-3), batch_of(reranker)
        for _ in range(12):
            optimizer.zero_grad()
            rerank_listwise.compute_loss(config, reranker, batch).backward()
            optimizer.step()
        taught = reranker(batch["inputs"], labels=batch["labels"], target=batch["target"])
        shares[weight] = (-taught.attention).exp().item()
    assert shares[1] > 0.8 > 0.6 > shares[0]


def test_what_candidates_are_read_by_is_kept_and_taken_over(tiny, tmp_path):
    settings = ["rerank.relevance=1", "rerank.naming=1", "rerank.candidates=4"]
    config = config_of(tiny("qwen3"), *settings)
    reranker = ListwiseReranker.create(config)
    reranker.save(tmp_path / "checkpoint")
    kept = load_file(tmp_path / "checkpoint" / "classifier.safetensors")
    assert {name: tuple(part.shape) for name, part in kept.items()} == {
        "weight": (1, 128),
        "naming_weight": (4, 128),
        "naming_bias": (4,),
    }
    other = replace(config, seed=1, train=replace(config.train, init_from=str(tmp_path / "checkpoint")))
    again, new = ListwiseReranker.create(other), ListwiseReranker.create(replace(config, seed=1))
    for name in ("relevance", "naming"):
        own, taken, drawn = (getattr(of, name).read.weight for of in (reranker, again, new))
        assert torch.equal(own, taken) and not torch.equal(own, drawn)
    path = tmp_path / "checkpoint" / "classifier.safetensors"
    save_file({"weight": kept["weight"]}, path)
    with pytest.raises(InputError, match=r"classifier\.safetensors: naming_weight: not 4 rows"):
        ListwiseReranker.load(tmp_path / "checkpoint", reranker.description)
    with pytest.raises(InputError, match=r"naming_weight: not 4 rows"):
        ListwiseReranker.create(other)
    save_file({**kept, "weight": torch.zeros(1, 64)}, path)
    with pytest.raises(InputError, match=r"classifier\.safetensors: weight: of another width"):
        ListwiseReranker.load(tmp_path / "checkpoint", reranker.description)
    path.unlink()
    with pytest.raises(InputError, match=r"classifier\.safetensors: no such file"):
        ListwiseReranker.load(tmp_path / "checkpoint", reranker.description)


def test_naming_counts_candidates_tokens_alone(tiny):
    naming = Naming(ListwiseReranker.create(config_of(tiny("qwen3"))).language, 3)
    hidden, candidate = torch.randn(1, 4, 128), torch.tensor([[0, 2, 0, 3]])
    wanted = F.cross_entropy(naming.read(hidden[0, [1, 3]]), torch.tensor([1, 2]))
    torch.testing.assert_close(naming(hidden, candidate), wanted)


def test_what_cannot_be_taught_together_is_said(tiny, monkeypatch):
    def examples(*settings):
        monkeypatch.setattr(rerank_listwise, "read_training", lambda *_: (type("Scored", (), {"scored": True}), {}))
        return rerank_listwise.examples(config_of(tiny("qwen3"), *settings))

    with pytest.raises(InputError, match=r"rerank.attention: leads answers by identifier"):
        examples("rerank.attention=1", "rerank.answer=relevance", "rerank.relevance=1")
    for name in ("naming", "attention"):
        with pytest.raises(InputError, match=rf"rerank.{name}, rerank.ranknet: not together on numbers"):
            examples(f"rerank.{name}=1", "rerank.ranknet=1", "rerank.identifiers=numbers")
    with pytest.raises(InputError, match=r"attention_kernel: flash_attention_2: does not say where an answer looks"):
        ListwiseReranker.create(config_of(tiny("qwen3"), "attention_kernel=flash_attention_2", "rerank.attention=1"))
