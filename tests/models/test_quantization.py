import importlib.util
import json
import shutil

import pytest
import torch
from conftest import FAMILIES, VISION
from safetensors.torch import load_file, save_file

from colmrl.configure import load_config
from colmrl.data.records import Document
from colmrl.errors import InputError
from colmrl.models.retriever import Retriever
from colmrl.models.weights import weights_fingerprint
from colmrl.training.run import train

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes has no wheel here, or is not installed"
)


def make(folder, *overrides):
    return Retriever.create(load_config(None, [f"model.backbone={folder}", "multi.dims=[64,16]", *overrides]))


def documents(family, sample):
    images = tuple(str(p) for p in sorted((sample / "test/images").iterdir())[:1]) if family in VISION else ()
    return [Document("a", text="red circle", images=images), Document("b", text="blue ring top left and more of it")]


def gradients(model, family, sample):
    model.train().zero_grad()
    out = model(model.inputs.documents(documents(family, sample)))
    (out.single[0] @ out.single[1] + out.multi.vectors.std()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@needs_bitsandbytes
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_two_steps_on_4_bit_weights_and_reloads_bit_equal(family, settings, tmp_path, sample):
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"query": f"red {i}", "pos": f"circle {i}", "negs": [f"ring {i}"]}) + "\n" for i in range(8))
    )
    text_only = ["model.document_fields=[text]", f"data.triples={tmp_path}/t.jsonl"]
    options = ["model.quantization=4bit", "model.tuning=lora", *(text_only if family not in VISION else [])]
    config = settings(tmp_path / "a", *options, family=family)
    start = {name: p.clone() for name, p in Retriever.create(config).named_parameters()}
    checkpoint = train(config)
    model = Retriever.load(checkpoint).eval()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, start[name])}
    assert changed >= {name for name in start if "lora_B" in name} | {"multi.projection.weight"}
    assert all("lora_" in name or not name.startswith("backbone") for name in changed)
    model.save(tmp_path / "again")
    batch = model.inputs.documents([Document(d.id, text=d.text) for d in documents(family, sample)])
    with torch.no_grad():
        before, after = model(batch), Retriever.load(tmp_path / "again").eval()(batch)
    assert torch.equal(before.single, after.single) and torch.equal(before.multi.vectors, after.multi.vectors)
    assert not list(checkpoint.glob("backbone*"))


@needs_bitsandbytes
@pytest.mark.parametrize(("quantization", "kind", "stored"), [("4bit", "Linear4bit", 0.5), ("8bit", "Linear8bitLt", 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_language_models_linear_layers_are_quantised_and_nothing_else(
    family, quantization, kind, stored, tiny, sample
):
    model = make(tiny(family), f"model.quantization={quantization}", "model.tuning=frozen")
    plain = dict(make(tiny(family), "model.tuning=frozen").named_modules())
    for name, module in model.named_modules():
        if not isinstance(plain[name], torch.nn.Linear):
            continue
        sees = any(part in name for part in ("visual", "vision_tower", "projector"))
        expected = kind if name.startswith("backbone") and not sees else "Linear"
        assert type(module).__name__ == expected, name
        size = plain[name].weight.numel()
        assert module.weight.nbytes == size * (stored if expected == kind else 4)
    assert {p.dtype for name, p in model.named_parameters() if not name.startswith("backbone")} == {torch.float32}
    assert gradients(model, family, sample).keys() == {"multi.projection.weight"}


@needs_bitsandbytes
def test_four_bits_are_near_the_full_weights_and_batch_mates_change_nothing(tiny, sample):
    model, plain = (make(tiny("qwen3"), "model.tuning=frozen", *q).eval() for q in (["model.quantization=4bit"], []))
    records = documents("qwen3", sample)
    with torch.no_grad():
        together = model(model.inputs.documents(records)).single
        alone = torch.cat([model(model.inputs.documents([record])).single for record in records])
        exact = plain(plain.inputs.documents(records)).single
    assert torch.allclose(together, alone, atol=1e-5)
    assert 0.9 < float((together * exact).sum(1).min()) < 0.9999


@needs_bitsandbytes
@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_an_evaluation_between_two_steps_changes_no_gradient(quantization, tiny, sample):
    model = make(tiny("qwen3"), f"model.quantization={quantization}", "model.tuning=lora")
    before = gradients(model, "qwen3", sample)
    with torch.no_grad():
        model.eval()(model.inputs.documents(documents("qwen3", sample)))
    after = gradients(model, "qwen3", sample)
    assert before and all(torch.equal(before[name], after[name]) for name in before)


@needs_bitsandbytes
def test_gradient_checkpointing_changes_no_gradient_of_lora_on_4_bits(tiny, sample):
    plain = make(tiny("qwen2_5_vl"), "model.quantization=4bit", "model.tuning=lora")
    checkpointed = make(tiny("qwen2_5_vl"), "model.quantization=4bit", "model.tuning=lora")
    checkpointed.backbone.checkpoint_gradients()
    expected, found = (gradients(model, "qwen2_5_vl", sample) for model in (plain, checkpointed))
    assert expected.keys() == found.keys()
    assert all(torch.allclose(expected[name], found[name], atol=1e-6) for name in expected)


@needs_bitsandbytes
def test_a_base_has_one_fingerprint_however_it_is_loaded_and_another_when_it_changed(tiny, tmp_path):
    base = shutil.copytree(tiny("qwen3"), tmp_path / "base")
    options = ([], ["model.quantization=4bit"], ["model.quantization=8bit"], ["model.dtype=bf16"])
    stamps = {make(base, "model.tuning=lora", *o).description.backbone_fingerprint for o in options}
    assert stamps == {weights_fingerprint(str(tiny("qwen3")))}
    make(base, "model.tuning=lora", "model.quantization=4bit").save(tmp_path / "c")
    weights = load_file(base / "model.safetensors")
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    weights[name][0, 0] += 1e-6  # less than four bits tell
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="other base weights"):
        Retriever.load(tmp_path / "c")


def test_a_bases_fingerprint_does_not_depend_on_how_its_weights_are_split_into_files(tiny, tmp_path):
    from transformers import AutoModel

    AutoModel.from_pretrained(tiny("qwen3")).save_pretrained(tmp_path / "many", max_shard_size="200KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    assert weights_fingerprint(str(tmp_path / "many")) == weights_fingerprint(str(tiny("qwen3")))
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="has no safetensors"):
        weights_fingerprint(str(tmp_path / "none"))


def test_quantization_without_bitsandbytes_says_what_to_install(tiny, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"model\.quantization: 4bit: needs bitsandbytes: pip install bitsandbytes"):
        make(tiny("qwen3"), "model.quantization=4bit", "model.tuning=lora")


def test_settings_that_exclude_each_other_are_refused():
    for overrides, says in (
        (["model.quantization=8bit"], r"model\.quantization: 8bit weights cannot be trained"),
        (["model.dtype=fp16"], r"model\.dtype: fp16 loses small updates.*train\.precision=fp16"),
        (["lora.targets=.*q_proj", "lora.vision=true"], r"lora\.targets, lora\.vision: both given"),
    ):
        with pytest.raises(InputError, match=says):
            load_config(None, overrides)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_16_bit_backbone_has_heads_and_lora_in_fp32(dtype, tiny, sample):
    model = make(tiny("qwen3_vl"), f"model.dtype={dtype}", "model.tuning=lora")
    trained = {p.dtype for p in model.parameters() if p.requires_grad}
    frozen = {p.dtype for p in model.parameters() if not p.requires_grad}
    assert trained == {torch.float32} and frozen == {{"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]}
    assert all(bool(g.isfinite().all()) for g in gradients(model, "qwen3_vl", sample).values())
    exact = make(tiny("qwen3_vl"), "model.tuning=lora").eval()
    batch = model.inputs.documents(documents("qwen3_vl", sample))
    with torch.no_grad():
        assert torch.allclose(model.eval()(batch).single, exact(batch).single, atol=0.05)


@needs_bitsandbytes
def test_an_8_bit_checkpoint_reloads_bit_equal(tiny, sample, tmp_path):
    model = make(tiny("internvl"), "model.quantization=8bit", "model.tuning=lora").eval()
    model.save(tmp_path / "c")
    batch = model.inputs.documents(documents("internvl", sample))
    with torch.no_grad():
        assert torch.equal(model(batch).single, Retriever.load(tmp_path / "c").eval()(batch).single)
