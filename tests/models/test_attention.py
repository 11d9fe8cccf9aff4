import importlib.util

import pytest
import torch
from conftest import FAMILIES, VISION
from transformers import AutoModel

from colmrl.config import ModelConfig
from colmrl.configure import load_config
from colmrl.data.beir import read_queries
from colmrl.data.records import Document
from colmrl.encoding import embed, encode
from colmrl.errors import InputError
from colmrl.models.backbone import Backbone
from colmrl.models.inputs import InputBuilder
from colmrl.models.processors import load_processor
from colmrl.models.retriever import Retriever
from colmrl.store import EmbeddingStore
from colmrl.training.run import train
from colmrl.view import View

CAUSAL = [family for family in FAMILIES if family != "bert"]
BOTH = ModelConfig(attention="bidirectional")


def inputs_of(family, tiny, side=None):
    return InputBuilder(load_processor(str(tiny(family)), None, side), ModelConfig())


def documents(family, sample, ends=("red circle",)):
    """As long as each other, with the same beginning and other ends."""
    images = tuple(str(p) for p in sorted((sample / "test/images").iterdir())[:1]) if family in VISION else ()
    return [Document(end, text=f"blue ring top left and {end}", images=images) for end in ends]


def make(folder, *overrides):
    return Retriever.create(load_config(None, [f"model.backbone={folder}", "multi.dims=[16]", *overrides])).eval()


@pytest.mark.parametrize("attention", ["native", "bidirectional"])
@pytest.mark.parametrize("family", CAUSAL)
def test_the_last_text_reaches_the_first_tokens_only_where_attention_is_bidirectional(family, attention, tiny, sample):
    backbone = Backbone.load(str(tiny(family)), ModelConfig(attention=attention)).eval()
    batch = inputs_of(family, tiny).documents(documents(family, sample, ("ring", "star")))
    assert bool(batch["attention_mask"].all())  # of one length: sdpa gets no mask, and reads is_causal
    first = int((batch["input_ids"][0] != batch["input_ids"][1]).nonzero()[0])
    with torch.no_grad():
        hidden, _ = backbone(batch)
    changed = (hidden[0, :first] - hidden[1, :first]).abs().amax(-1)
    assert first > 4 and (bool((changed > 1e-6).all()) if attention == "bidirectional" else changed.max() < 1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", CAUSAL)
def test_bidirectional_padding_and_batch_mates_change_no_hidden_state(family, side, tiny, sample):
    inputs, backbone = inputs_of(family, tiny, side), Backbone.load(str(tiny(family)), BOTH).eval()
    several = documents(family, sample, ("red", "a much longer end, with wörds unknown to it"))
    with torch.no_grad():
        batch = inputs.documents(several)
        assert not bool(batch["attention_mask"].all())
        hidden, mask = backbone(batch)
        for i, document in enumerate(several):
            alone, own = backbone(inputs.documents([document]))
            assert torch.allclose(hidden[i][mask[i]], alone[0][own[0]], atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", CAUSAL)
def test_bidirectional_hidden_states_are_those_of_an_eager_model_that_is_given_its_mask(family, side, tiny, sample):
    batch = inputs_of(family, tiny, side).documents(documents(family, sample, ("red", "green and so on and on")))
    tokens = batch["attention_mask"].bool()
    allowed = tokens[:, None, None, :].expand(-1, 1, tokens.shape[1], -1)
    mask = torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)
    reference = AutoModel.from_pretrained(tiny(family), attn_implementation="eager").eval()

    def give(module, args, kwargs):
        return args, kwargs | {"attention_mask": mask}

    (reference if family == "qwen3" else reference.language_model).register_forward_pre_hook(give, with_kwargs=True)
    with torch.no_grad():
        expected = reference(**batch, use_cache=False).last_hidden_state
        hidden, _ = Backbone.load(str(tiny(family)), BOTH).eval()(batch)
    assert torch.allclose(hidden[tokens], expected[tokens], atol=1e-5)


@pytest.mark.parametrize("tuning", ["full", "lora", "frozen"])
@pytest.mark.parametrize("family", ["qwen3_vl", "internvl", "qwen3"])
def test_a_bidirectional_checkpoint_reloads_bidirectional(family, tuning, tiny, sample, tmp_path):
    options = ["model.attention=bidirectional", f"model.tuning={tuning}"]
    model = make(tiny(family), *options)
    batch = model.inputs.documents(documents(family, sample))
    model.save(tmp_path / "c")
    with torch.no_grad():
        before, after = model(batch), Retriever.load(tmp_path / "c").eval()(batch)
        native = make(tiny(family), f"model.tuning={tuning}")(batch)
    assert torch.equal(before.single, after.single) and torch.equal(before.multi.vectors, after.multi.vectors)
    assert (before.single - native.single).abs().max() > 1e-3


def test_training_encoding_and_reload_are_bidirectional_alike(settings, sample, tmp_path):
    config = settings(tmp_path / "a", "model.attention=bidirectional", "model.tuning=lora", "multi.dims=[]")
    checkpoint = train(config)
    store = EmbeddingStore(encode(config, checkpoint, sample / "train", tmp_path / "store") / "queries")
    stored = torch.from_numpy(next(iter(store.single(View("single", 128)))))
    queries = list(read_queries(sample / "train"))[: len(stored)]
    model = Retriever.load(checkpoint).eval()
    assert torch.allclose(embed(model, "queries", queries, 2).single, stored, atol=1e-5)
    model.backbone.model.get_base_model().config.get_text_config().is_causal = True
    assert not torch.allclose(embed(model, "queries", queries, 1).single, stored, atol=1e-3)


@pytest.mark.parametrize("family", CAUSAL)
def test_gradient_checkpointing_keeps_lora_bidirectional(family, tiny, sample):
    def gradients(checkpointing):
        model = make(tiny(family), "model.attention=bidirectional", "model.tuning=lora").train()
        if checkpointing:
            model.backbone.checkpoint_gradients()
        out = model(model.inputs.documents(documents(family, sample, ("red", "gray"))))
        (out.single[0] @ out.single[1] + out.multi.vectors.std()).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys() and any("lora_B" in name for name in plain)
    assert all(torch.allclose(plain[name], checkpointed[name], atol=1e-6) for name in plain)


def test_bert_sees_all_already(tiny, sample):
    batch = inputs_of("bert", tiny).documents(documents("bert", sample, ("red", "gray and more")))
    with torch.no_grad():
        native, _ = Backbone.load(str(tiny("bert"))).eval()(batch)
        both, mask = Backbone.load(str(tiny("bert")), BOTH).eval()(batch)
    assert torch.equal(native[mask], both[mask])


def test_native_is_what_the_backbones_own_config_says(tiny, sample, tmp_path):
    Backbone.load(str(tiny("qwen3")), BOTH).model.save_pretrained(tmp_path / "encoder")
    one, two = documents("qwen3", sample, ("red", "gray"))
    inputs = inputs_of("qwen3", tiny)
    with torch.no_grad():
        expected, _ = Backbone.load(str(tiny("qwen3")), BOTH).eval()(inputs.documents([one]))
        hidden, _ = Backbone.load(str(tmp_path / "encoder")).eval()(inputs.documents([one]))
    assert two.text != one.text and torch.equal(hidden, expected)


def test_flash_attention_that_cannot_run_says_what_to_install_or_set(tiny, monkeypatch):
    def load(**config):
        return Backbone.load(str(tiny("qwen3")), ModelConfig(**config), "flash_attention_2")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        InputError, match=r"attention_kernel: flash_attention_2: .*no GPU here: use attention_kernel=sd"
    ):
        load(dtype="bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed: pip install flash-attn"):
        load(dtype="bf16")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(InputError, match=r"no fp32: set model\.dtype=bf16"):
        load()


def test_the_kernel_reaches_the_model_from_every_way_in_and_is_not_in_the_checkpoint(
    tiny, sample, tmp_path, monkeypatch, settings
):
    asked = []
    monkeypatch.setattr("colmrl.models.backbone.check_kernel", lambda kernel, dtype: asked.append(kernel))
    make(tiny("qwen3")).save(tmp_path / "c")
    assert "kernel" not in (tmp_path / "c/colmrl.json").read_text() and asked == ["sdpa"]
    flash = load_config(None, [f"model.backbone={tiny('qwen3')}", "attention_kernel=flash_attention_2"])
    for use in (
        lambda: Retriever.create(flash),
        lambda: Retriever.load(tmp_path / "c", "flash_attention_2"),
        lambda: encode(flash, tmp_path / "c", sample / "train", tmp_path / "store"),
    ):
        with pytest.raises((InputError, ImportError)):
            use()
    assert asked[1:] == ["flash_attention_2"] * 3
