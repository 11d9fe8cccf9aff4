"""Merged weights and kept adapters give our vectors by transformers alone; a quantised base is dequantised."""

from types import SimpleNamespace

import pytest
import torch
from making import QUERIES, TEXTS, code_of, documents, make, ours
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from colmrl.errors import InputError
from colmrl.exporting.plain import load_plain
from colmrl.exporting.run import Asked, export
from colmrl.models.processors import load_processor
from colmrl.models.retriever import Retriever


def run(block, folder, monkeypatch, source=None):
    """A card's code, run where the folder is; its names. AutoProcessor, which cannot be had without torchvision, is
    ours from `source`, with the folder's chat template."""
    monkeypatch.chdir(folder)
    names: dict = {}
    if source is not None:
        processor = load_processor(str(source), None, None)
        processor.chat_template = (folder / "chat_template.jinja").read_text()
        block = block.replace("AutoModel, AutoProcessor", "AutoModel")
        names["AutoProcessor"] = SimpleNamespace(from_pretrained=lambda _: processor)
    exec(block, names)
    return names


def test_a_text_model_s_card_gives_our_vectors(tiny, tmp_path, monkeypatch):
    folder = make(tmp_path / "c", tiny("bert"), "model.tuning=lora", "single.projection=96", "single.dims=[48]")
    queries, _ = ours(folder, documents(tmp_path, False))
    out = export(folder, Asked("transformers"), tmp_path / "e")
    embed = run(code_of(out)[0], out, monkeypatch)["embed"]
    for text, vector, vectors in zip(TEXTS, queries.single, queries.multi.unpack(), strict=True):
        single, multi = embed(f"Query: {text}", 512)
        assert torch.allclose(single, vector, atol=2e-6) and torch.allclose(multi, vectors, atol=2e-6)


def test_a_seeing_model_s_card_gives_our_vectors(tiny, sample, tmp_path, monkeypatch):
    folder = make(tmp_path / "c", tiny("qwen3_vl"), "model.tuning=lora", "single.pooling=last")
    of = documents(sample, True)
    _, found = ours(folder, of)
    out = export(folder, Asked("transformers", adapter=True), tmp_path / "e")
    assert not (out / "model.safetensors").exists() and (out / "adapter_model.safetensors").exists()
    names = run(code_of(out)[0], out, monkeypatch, folder / "processor")
    pictures = [names["Image"].open(path).convert("RGB") for path in of[4].images]
    single, multi = names["embed"]("document", of[4].text, pictures)
    assert torch.allclose(single, found.single[4], atol=2e-6)
    assert torch.allclose(multi, found.multi.unpack()[4], atol=2e-6)


def test_merged_weights_are_the_base_s_plus_the_product(tiny, tmp_path):
    folder = make(tmp_path / "c", tiny("qwen3"), "model.tuning=lora", "lora.r=4", "lora.alpha=12")
    merged = load_plain(folder).model.state_dict()
    base = AutoModel.from_pretrained(tiny("qwen3")).state_dict()
    adapter = load_file(folder / "adapter/adapter_model.safetensors")
    touched = {
        name.removeprefix("base_model.model.").replace(".lora_A.weight", "") for name in adapter if "lora_A" in name
    }
    assert len(touched) == 7 * 3 and merged.keys() == base.keys()
    for name, weight in merged.items():
        key = f"base_model.model.{name.removesuffix('.weight')}"
        expected = base[name]
        if f"{key}.lora_A.weight" in adapter:
            expected = expected + 3.0 * adapter[f"{key}.lora_B.weight"] @ adapter[f"{key}.lora_A.weight"]
        assert torch.allclose(weight, expected, atol=1e-7), name


@pytest.mark.slow
def test_a_base_in_four_bits_is_exported_as_its_four_bits_say(tiny, tmp_path):
    pytest.importorskip("bitsandbytes")
    folder = make(tmp_path / "c", tiny("qwen3"), "model.tuning=lora", "model.quantization=4bit")
    plain = load_plain(folder)
    linear = plain.model.layers[0].mlp.up_proj
    assert type(linear) is torch.nn.Linear and linear.weight.dtype == torch.float32
    batch = Retriever.load(folder).inputs.queries(QUERIES)
    with torch.no_grad():
        quantised = Retriever.load(folder).eval().backbone(batch)[0]
        expected = plain.model(**batch, use_cache=False).last_hidden_state
        whole = AutoModel.from_pretrained(tiny("qwen3")).eval()(**batch, use_cache=False).last_hidden_state
    mask = batch["attention_mask"].bool()
    assert torch.allclose(expected[mask], quantised[mask], atol=1e-4)
    assert not torch.allclose(expected[mask], whole[mask], atol=1e-2)


def test_what_cannot_be_is_said(tiny, tmp_path):
    folder = make(tmp_path / "c", tiny("bert"), "multi.dims=[]")
    wrong = {
        r"--adapter: .*: has no LoRA": Asked("transformers", adapter=True),
        r"--adapter: onnx takes merged weights": Asked("onnx", adapter=True),
        r"--head: pylate takes the multi head": Asked("pylate", head="multi"),
        r"--to pylate: the checkpoint has no multi head": Asked("pylate"),
        r"--to colpali-engine: bert: is none of qwen2_vl": Asked("colpali-engine"),
        r"--head multi: the checkpoint has the single head alone": Asked("vllm", head="multi"),
    }
    for said, asked in wrong.items():
        with pytest.raises(InputError, match=said):
            export(folder, asked, tmp_path / "e")
    assert not (tmp_path / "e").exists()


def test_the_tokenizer_lies_beside(tiny, tmp_path):
    out = export(make(tmp_path / "c", tiny("bert")), Asked("transformers"), tmp_path / "e")
    assert (
        AutoTokenizer.from_pretrained(out)("red")["input_ids"]
        == AutoTokenizer.from_pretrained(tiny("bert"))("red")["input_ids"]
    )


def test_a_checkpoint_whose_pictures_pillow_resizes_is_exported_and_that_is_said(tiny, tmp_path, caplog):
    for by in ("torch", "pil"):
        folder = make(tmp_path / by, tiny("qwen2_5_vl"), f"model.resize={by}")
        assert export(folder, Asked("transformers"), tmp_path / f"{by}-exported").is_dir()
        assert ("resizes pictures by Pillow" in caplog.text) == (by == "pil")
