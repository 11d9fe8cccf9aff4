"""vLLM cannot run here. A folder is held against the rules of its source: the names of tensors that its mappings
expect, the files that it reads, and vectors from the folder by transformers and those files alone.

Read at 055e47c28003 (vllm/model_executor/models/{adapters,colqwen3,colbert}.py, vllm/transformers_utils/config.py).
"""

import json

import pytest
import torch
from conftest import FAMILIES
from making import QUERIES, documents, make, ours
from safetensors.torch import load_file
from torch.nn.functional import normalize
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, BertModel

from colmrl.errors import InputError
from colmrl.exporting.run import Asked, export
from colmrl.models.retriever import Retriever
from colmrl.scoring import truncate

# WeightsMapper.orig_to_new_prefix: ColQwen3Model, and the classes that write
_SEEING = {"model.visual.": "visual.", "model.language_model.": "language_model.model."}
_MAPPED = {
    "qwen2_vl": _SEEING,
    "qwen2_5_vl": _SEEING,
    "qwen3_vl": _SEEING,
    "internvl": {
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.",
        "model.multi_modal_projector.": "multi_modal_projector.",
    },
    "qwen3": {"model.": "model."},
    "bert": {"embeddings.": "embeddings.", "encoder.": "encoder.", "pooler.": "pooler."},
}


def tensors(folder):
    files = folder.glob("*.safetensors")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def hidden(folder, family, batch):
    """Hidden states by transformers' class that writes, of which nothing may be missing."""
    loader = AutoModelForCausalLM if family == "qwen3" else AutoModelForImageTextToText
    model, report = loader.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and set(report["unexpected_keys"]) <= {"custom_text_proj.weight"}
    assert type(model).__name__ == json.loads((folder / "config.json").read_text())["architectures"][0] or (
        report["unexpected_keys"] == {"custom_text_proj.weight"}
    )
    with torch.no_grad():
        return model.eval().model(**batch, use_cache=False).last_hidden_state


def st_modules(folder):
    """modules.json as vLLM reads it: by these class names, Dense in order."""
    modules = json.loads((folder / "modules.json").read_text())
    of = {
        kind: [m["path"] for m in modules if m["type"] == f"sentence_transformers.models.{kind}"]
        for kind in ("Pooling", "Dense", "Normalize")
    }
    pooling = json.loads((folder / of["Pooling"][0] / "config.json").read_text())
    dense = [load_file(folder / path / "model.safetensors")["linear.weight"] for path in of["Dense"]]
    return [key for key, value in pooling.items() if value is True], dense, bool(of["Normalize"])


@pytest.mark.parametrize("family", FAMILIES)
def test_names_of_tensors_are_those_that_vllm_maps(family, tiny, tmp_path):
    folder = export(make(tmp_path / "c", tiny(family)), Asked("vllm", head="single"), tmp_path / "e")
    names, mapping = set(tensors(folder)), _MAPPED[family]
    assert all(any(name.startswith(prefix) for prefix in mapping) for name in names), names
    config = AutoConfig.from_pretrained(folder)
    assert config.is_matryoshka and config.matryoshka_dimensions == [32, 128] and config.model_type == family


@pytest.mark.parametrize(("family", "pooling"), [("qwen3", "last"), ("qwen2_5_vl", "mean"), ("internvl", "last")])
def test_the_single_head_is_what_vllm_s_rules_make_of_the_folder(family, pooling, tiny, sample, tmp_path):
    head = ["single.projection=96", "single.dims=[96,32]"] if family == "qwen3" else ["single.dims=[64,32]"]
    folder = make(tmp_path / "c", tiny(family), "model.tuning=lora", f"single.pooling={pooling}", *head)
    queries, _ = ours(folder, documents(sample, False))
    out = export(folder, Asked("vllm", head="single"), tmp_path / "e")
    batch = Retriever.load(folder).inputs.queries(QUERIES)
    states, mask = hidden(out, family, batch), batch["attention_mask"].bool()
    modes, dense, normalised = st_modules(out)
    assert modes == [{"last": "pooling_mode_lasttoken", "mean": "pooling_mode_mean_tokens"}[pooling]] and normalised
    pooled = torch.stack(
        [each[m][-1] if pooling == "last" else each[m].mean(0) for each, m in zip(states, mask, strict=True)]
    )
    (matrix,) = dense
    projected = pooled @ matrix.T
    assert torch.allclose(normalize(projected, dim=-1), queries.single, atol=2e-6)
    assert torch.allclose(normalize(projected[:, :32], dim=-1), truncate(queries.single, 32), atol=2e-6)


def test_colqwen3_projects_tokens(tiny, sample, tmp_path):
    folder = make(tmp_path / "c", tiny("qwen3_vl"), "model.tuning=lora")
    of = documents(sample, True)[3:4]
    _, found = ours(folder, of)
    out = export(folder, Asked("vllm", head="multi"), tmp_path / "e")
    config, names = AutoConfig.from_pretrained(out), tensors(out)
    assert (
        config.architectures == ["ColQwen3"]
        and config.dim == 64
        and names["custom_text_proj.weight"].shape == (64, 128)
    )
    assert "custom_text_proj.bias" not in names
    assert all(name.startswith((*_SEEING, "custom_text_proj.")) for name in names)
    batch = Retriever.load(folder).inputs.documents(of)
    batch.pop("positions")
    states = hidden(out, "qwen3_vl", batch)[batch["attention_mask"].bool()]
    vectors = normalize(states @ names["custom_text_proj.weight"].T, dim=-1)
    assert torch.allclose(vectors, found.multi.vectors, atol=2e-6)


def test_colbert_projects_tokens(tiny, tmp_path):
    folder = make(tmp_path / "c", tiny("bert"), "single.dims=[]")
    queries, _ = ours(folder, documents(tmp_path, False))
    out = export(folder, Asked("vllm"), tmp_path / "e")
    config, names = json.loads((out / "config.json").read_text()), tensors(out)
    assert config["architectures"] == ["HF_ColBERT"] and config["dim"] == 64
    linear = names.pop("linear.weight")
    assert all(name.startswith("bert.") for name in names)
    model = BertModel(AutoConfig.from_pretrained(out))
    model.load_state_dict({name.removeprefix("bert."): tensor for name, tensor in names.items()})
    batch = Retriever.load(folder).inputs.queries(QUERIES)
    with torch.no_grad():
        states = model.eval()(**batch).last_hidden_state[batch["attention_mask"].bool()]
    assert torch.allclose(normalize(states @ linear.T, dim=-1), queries.multi.vectors, atol=2e-6)


def test_what_vllm_has_no_class_for_is_refused(tiny, tmp_path):
    folder = make(tmp_path / "c", tiny("qwen2_5_vl"))
    with pytest.raises(InputError, match="give --head single or --head multi"):
        export(folder, Asked("vllm"), tmp_path / "e")
    with pytest.raises(InputError, match="none for qwen2_5_vl"):
        export(folder, Asked("vllm", head="multi"), tmp_path / "e")
    both = make(tmp_path / "b", tiny("internvl"), "model.attention=bidirectional")
    with pytest.raises(InputError, match="causal attention alone for internvl"):
        export(both, Asked("vllm", head="single"), tmp_path / "e")
