import logging
import shutil

import pytest
import torch
from torch.nn import functional as F

from colmrl.configure import load_config
from colmrl.data.records import Document
from colmrl.errors import InputError
from colmrl.models.initialising import take_over
from colmrl.models.retriever import Retriever
from colmrl.models.tiny import write_tiny_model
from colmrl.training.run import train

TEXTS = [Document("a", text="red circle"), Document("b", text="blue ring top left")]


def configure(folder, *overrides):
    base = [f"model.backbone={folder}", "multi.dims=[64,16]", "single.dims=[64,16]", "single.projection=64"]
    return load_config(None, [*base, *overrides])


@pytest.fixture
def saved(tiny, tmp_path):
    """overrides → a checkpoint whose trained weights are all random, and its model."""

    def make(*overrides, family="qwen3"):
        model = Retriever.create(configure(tiny(family), *overrides)).eval()
        torch.manual_seed(7)
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.05)
        model.save(tmp_path / "c")
        return tmp_path / "c", model

    return make


def embed(model):
    with torch.no_grad():
        return model.eval()(model.inputs.documents(TEXTS))


@pytest.mark.parametrize("tuning", ["full", "lora", "frozen"])
def test_what_keeps_the_weights_meaning_may_differ(tuning, saved, tiny):
    folder, before = saved(f"model.tuning={tuning}")
    free = ["seed=5", "single.temperature=1", "multi.budgets=[4]", "lora.dropout=0.5", "model.query_prompt=Q {text}"]
    free += ["model.max_document_tokens=99", "model.document_fields=[text]", "show.frames=2", "loss.pairwise=1"]
    after = take_over(configure(tiny("qwen3"), f"model.tuning={tuning}", *free), folder)
    assert torch.equal(embed(before).single, embed(after).single)
    assert torch.equal(embed(before).multi.vectors, embed(after).multi.vectors)
    description = after.description
    assert (description.model.query_prompt, description.single.temperature, description.show.frames) == (
        "Q {text}",
        1,
        2,
    )
    rates = {m.p for m in after.modules() if isinstance(m, torch.nn.Dropout) and "lora" not in type(m).__name__}
    assert tuning != "lora" or 0.5 in rates
    trained = {name for name, p in before.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in after.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("changed", ["model.attention=bidirectional", "model.quantization=4bit", "model.dtype=bf16"])
def test_lora_goes_on_with_other_attention_quantization_or_dtype(changed, saved, tiny):
    if "4bit" in changed:
        pytest.importorskip("bitsandbytes")
    folder, before = saved("model.tuning=lora")
    after = take_over(configure(tiny("qwen3"), "model.tuning=lora", changed), folder)
    weights = dict(after.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in before.named_parameters() if p.requires_grad)
    assert not torch.equal(embed(before).single, embed(after).single)


def test_fewer_dims_take_the_leading_rows(saved, tiny):
    folder, before = saved()
    after = take_over(configure(tiny("qwen3"), "multi.dims=[16]", "single.dims=[16]", "single.projection=32"), folder)
    expected = F.normalize(embed(before).multi.vectors[:, :16], dim=1)
    assert torch.allclose(embed(after).multi.vectors, expected, atol=1e-6)
    assert torch.allclose(embed(after).single, F.normalize(embed(before).single[:, :16], dim=1), atol=1e-6)
    assert after.single.projection.weight.shape[0] == 32


def test_heads_that_are_new_or_left_out_are_named(saved, tiny, caplog):
    caplog.set_level(logging.INFO)
    folder, before = saved("multi.dims=[]")
    config = configure(tiny("qwen3"), "single.projection=null")
    after = take_over(config, folder)
    assert "new: multi.projection" in caplog.text and "left out: single.projection" in caplog.text
    assert torch.equal(after.multi.projection.weight, Retriever.create(config).multi.projection.weight)
    caplog.clear()
    without = take_over(configure(tiny("qwen3"), "multi.dims=[]"), folder)
    assert not caplog.text and torch.equal(embed(before).single, embed(without).single)


def test_weights_that_would_mean_something_else_are_refused_with_the_remedy(saved, tiny):
    for made, wanted, says in (
        (["model.tuning=lora"], ["model.tuning=full"], r"another model\.tuning \(lora, not full\)"),
        (["model.tuning=full"], ["model.tuning=lora"], r"another model\.tuning \(full, not lora\)"),
        (["model.tuning=lora"], ["model.tuning=lora", "lora.r=2"], r"another lora\.r \(16, not 2\): take its settings"),
        (["model.tuning=lora"], ["model.tuning=lora", "lora.alpha=2"], r"another lora\.alpha"),
        (["model.tuning=lora"], ["model.tuning=lora", "lora.targets=.*q_proj"], r"another lora\.targets"),
        (["model.attention=bidirectional"], [], r"another model\.attention \(bidirectional, not native\)"),
        ([], ["single.pooling=last"], r"another single\.pooling"),
        ([], ["multi.dims=[128]"], r"multi\.dims: 128 is wider than the checkpoint's 64: lower it"),
        ([], ["single.projection=128"], r"single\.projection: 128 is wider"),
    ):
        folder, _ = saved(*made)
        with pytest.raises(InputError, match=rf"train\.init_from: .*{says}"):
            take_over(configure(tiny("qwen3"), *wanted), folder)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_heads_trained_on_a_frozen_backbone_go_on_with_any_tuning(tuning, saved, tiny):
    folder, before = saved("model.tuning=frozen")
    after = take_over(configure(tiny("qwen3"), f"model.tuning={tuning}"), folder)
    assert torch.equal(embed(before).single, embed(after).single)  # LoRA starts at nothing
    assert (after.description.backbone_fingerprint is None) == (tuning == "full")


@pytest.mark.parametrize("tuning", ["full", "lora", "frozen"])
def test_another_base_is_refused_and_a_moved_one_is_not(tuning, saved, tiny, tmp_path):
    folder, _ = saved(f"model.tuning={tuning}")
    other = write_tiny_model("qwen3", tmp_path / "other", seed=1)
    with pytest.raises(InputError, match=r"train\.init_from: .*(model\.backbone|other base weights)"):
        take_over(configure(other, f"model.tuning={tuning}"), folder)
    if tuning != "full":
        moved = shutil.copytree(tiny("qwen3"), tmp_path / "moved")
        model = take_over(configure(moved, f"model.tuning={tuning}"), folder)
        assert model.description.model.backbone == str(moved)


def test_a_run_goes_on_from_another_runs_checkpoint_and_reloads(settings, tmp_path):
    first = train(settings(tmp_path / "a", "model.tuning=lora"))
    options = ["model.tuning=lora", f"train.init_from={first}", "multi.dims=[16]", "model.attention=bidirectional"]
    second = train(settings(tmp_path / "b", *options))
    model, before = Retriever.load(second), Retriever.load(first)
    assert model.description.trained.multi_dims == (16,)
    assert model.description.model.attention == "bidirectional"
    rows = model.multi.projection.weight - before.multi.projection.weight[:16]
    assert 0 < float(rows.detach().abs().max()) < 0.01  # two steps of 1e-3
