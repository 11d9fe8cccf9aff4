"""ColPali's kind: what other libraries compute with a folder is what `Retriever.load` of it computes."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, InternVLModel

from colmrl.config import MultiConfig
from colmrl.configure import load_config
from colmrl.errors import InputError
from colmrl.models.initialising import take_over
from colmrl.models.retriever import Retriever, read_description
from colmrl.models.sources import find_source

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
# Of colpali-engine's recipes.
TARGETS = r"(.*(model).*(down_proj|gate_proj|up_proj|k_proj|q_proj|v_proj|o_proj).*$|.*(custom_text_proj).*$)"


class ColInternVL(InternVLModel):
    """As colpali-engine makes its models of transformers' classes."""

    def __init__(self, config):
        super().__init__(config)
        self.custom_text_proj = nn.Linear(config.text_config.hidden_size, 64)
        self.post_init()

    def forward(self, *, attention_mask, positions, **inputs):
        hidden = super().forward(attention_mask=attention_mask, **inputs).last_hidden_state
        projected = self.custom_text_proj(hidden)
        return (projected / projected.norm(dim=-1, keepdim=True))[attention_mask.bool()]


@pytest.fixture(scope="module")
def interop():
    """The benchmark's module: it writes the folders and knows both sides' vectors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("interop_colpali")


@pytest.fixture(scope="module")
def work(interop, tmp_path_factory):
    work = tmp_path_factory.mktemp("colpali")
    interop.write_records(work)
    return work


@pytest.fixture(scope="module")
def native(interop, work):
    return interop.write_native(work)


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory):
    """A whole ColInternVL, its bias not zero."""
    folder = tmp_path_factory.mktemp("internvl") / "base"
    torch.manual_seed(1)
    model = ColInternVL(AutoConfig.from_pretrained(tiny("internvl")))
    nn.init.normal_(model.custom_text_proj.bias)
    model.save_pretrained(folder)
    return _with_processor(folder, tiny)


@pytest.fixture
def adapter(base, tiny, tmp_path):
    """options of LoRA → an adapter on it, and the adapted model."""

    def make(**options):
        settings = {"r": 4, "lora_alpha": 12, "target_modules": TARGETS, **options}
        model = get_peft_model(ColInternVL.from_pretrained(base), LoraConfig(**settings))
        torch.manual_seed(2)
        for parameter in model.parameters():
            if parameter.requires_grad:
                nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(tmp_path / "adapter")
        return _with_processor(tmp_path / "adapter", tiny), model.eval()

    return make


def _with_processor(folder, tiny):
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja"):
        shutil.copy(tiny("internvl") / name, folder / name)
    return folder


@torch.no_grad()
def differences(model, reference, work, interop):
    """Largest of the vectors of pages and of queries, the reference given the same input."""
    pages = [interop.Document(id=page.name, images=(str(page),)) for page in sorted(work.glob("page-*.png"))]
    batches = [model.inputs.documents(pages), model.inputs.queries([interop.Query(id="q", text="a blue star")])]
    return max((model(batch).multi.vectors - reference(**batch)).abs().max().item() for batch in batches)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rename(path, before, after):
    tensors = {name.replace(before, after): tensor for name, tensor in load_file(path).items()}
    path.unlink()
    save_file(tensors, path, {"format": "pt"})


def test_transformers_own_class_gives_the_same_vectors_of_the_same_tokens(native, interop, work):
    assert interop.error(interop.ours(native, work), load_file(native.with_suffix(".safetensors"))) < 1e-5


def test_transformers_own_class_counts_visual_tokens_like_words(native, interop, work, monkeypatch):
    """Rows and columns, as Qwen2-VL has them, give other vectors: the setting is what makes them equal."""
    model = read_description(native).model
    assert model.positions == "text"
    theirs, load = load_file(native.with_suffix(".safetensors")), Retriever.load

    def with_rows(folder):
        model = load(folder)
        model.backbone.counts_visual = False
        return model

    monkeypatch.setattr(Retriever, "load", with_rows)
    assert interop.error(interop.ours(native, work), theirs) > 1e-2


@pytest.mark.parametrize("older", ["vlm.model.", "vlm.model.language_model."])
def test_weights_of_transformers_class_are_found_under_older_names(older, native, interop, work, tmp_path):
    folder = shutil.copytree(native, tmp_path / "older")
    rename(folder / "model.safetensors", "vlm.language_model.", older)
    theirs = load_file(native.with_suffix(".safetensors"))
    assert interop.error(interop.ours(folder, work), theirs) < 1e-5


def test_a_whole_checkpoint_is_read_with_the_bias_of_its_projection(base, interop, work):
    model = Retriever.load(base).eval()
    reference = ColInternVL.from_pretrained(base).eval()
    assert differences(model, reference, work, interop) < 1e-5
    reference.custom_text_proj.bias = None
    assert differences(model, reference, work, interop) > 1e-2
    assert model.description.multi == MultiConfig(dims=(64,), bias=True) and not model.description.single.dims


@pytest.mark.parametrize("whole", [False, True])
def test_an_adapter_is_read_with_what_it_has_of_the_projection(whole, adapter, interop, work):
    """LoRA on it, as published ones have; or all of it (modules_to_save)."""
    options = {"target_modules": TARGETS.split("|.*(cust")[0][1:], "modules_to_save": ["custom_text_proj"]}
    folder, reference = adapter(**(options if whole else {}))
    model = Retriever.load(folder).eval()
    assert model.description.model.tuning == "lora" and (model.description.lora.r, model.description.lora.alpha) == (
        4,
        12,
    )
    assert differences(model, reference, work, interop) < 1e-5


@pytest.mark.parametrize("named", ["model.language_model.", "language_model.model.", "model."])
def test_the_adapter_of_another_base_class_has_its_names_changed(named, adapter, interop, work):
    folder, reference = adapter()
    rename(folder / "adapter_model.safetensors", "base_model.model.language_model.", f"base_model.model.{named}")
    assert differences(Retriever.load(folder).eval(), reference, work, interop) < 1e-5


def test_an_adapter_on_some_layers_only_stays_on_those(adapter, interop, work):
    folder, reference = adapter(layers_to_transform=[0, 2], target_modules=["q_proj", "down_proj"])
    model = Retriever.load(folder).eval()
    assert differences(model, reference, work, interop) < 1e-5
    touched = {name.split(".lora_A")[0][-40:] for name, _ in model.backbone.named_parameters() if ".lora_A" in name}
    assert touched and not any("layers.1." in name for name in touched)


@pytest.mark.parametrize("kind", ["adapter", "base", "native"])
def test_training_goes_on_from_it_and_keeps_bias_prompts_and_positions(kind, base, native, adapter, tmp_path):
    folder = {"base": base, "native": native}.get(kind) or adapter()[0]
    tuning = "lora" if kind == "adapter" else "full"
    before = Retriever.load(folder)
    dims = [max(before.description.multi.dims), 16]
    config = load_config(None, [f"model.tuning={tuning}", "single.dims=[]", f"multi.dims={dims}"])
    model = take_over(config, folder)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before.get_parameter(name)), name
    with torch.no_grad():
        model.multi.projection.bias += 1
    model.save(tmp_path / "saved")
    after = Retriever.load(tmp_path / "saved")
    kept = ("query_prompt", "document_prompt", "template", "document_fields", "positions")
    for name in kept:
        assert getattr(after.description.model, name) == getattr(before.description.model, name)
    assert after.description.lora == before.description.lora
    assert torch.equal(after.multi.projection.bias, before.multi.projection.bias + 1)
    assert after.backbone.counts_visual == (kind == "native")


def test_a_frozen_backbone_of_transformers_class_is_found_again(native, interop, work, tmp_path):
    take_over(load_config(None, ["model.tuning=frozen", "single.dims=[]", "multi.dims=[128]"]), native).save(
        tmp_path / "c"
    )
    theirs = load_file(native.with_suffix(".safetensors"))
    assert interop.error(interop.ours(tmp_path / "c", work), theirs) < 1e-5


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"use_dora": True}, "adapter_config.json: use_dora: True: only plain LoRA can be read"),
        ({"rank_pattern": {"q_proj": 2}}, "adapter_config.json: rank_pattern"),
        ({"base_model_name_or_path": None}, "adapter_config.json: base_model_name_or_path: not given"),
        ({"base_model_name_or_path": "/nowhere/base"}, "adapter_config.json: base_model_name_or_path: /nowhere/base"),
    ],
)
def test_an_adapter_that_cannot_be_read_is_an_error_that_names_the_setting(changed, said, adapter):
    folder, _ = adapter()
    edit(folder / "adapter_config.json", **changed)
    with pytest.raises(InputError) as raised:
        find_source(folder)
    assert said in str(raised.value)


def test_an_adapter_of_a_base_of_another_size_is_refused(adapter, native):
    folder, _ = adapter()
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors = {name: torch.cat([t, t], 1) if ".lora_A" in name else t for name, t in tensors.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"adapter_model.safetensors: .*lora_A.*: the base has no linear layer"):
        find_source(folder)


def test_pickled_weights_and_other_backbones_are_refused(adapter, base, tmp_path):
    folder, _ = adapter()
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(InputError, match=r"adapter_model.bin is a pickle, which is never loaded"):
        find_source(folder)
    other = shutil.copytree(base, tmp_path / "paligemma")
    edit(other / "config.json", model_type="paligemma", architectures=["ColPali"])
    with pytest.raises(InputError, match=r"config.json: model_type: paligemma: .*qwen2_vl"):
        find_source(other)


def test_a_whole_checkpoint_without_its_projection_is_refused(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "headless")
    edit(folder / "config.json", architectures=["ColInternVL"])
    rename(folder / "model.safetensors", "custom_text_proj", "other")
    with pytest.raises(
        InputError, match=r"custom_text_proj.weight or embedding_proj_layer.weight: not among its weights"
    ):
        find_source(folder)


def test_a_backbone_that_lacks_weights_is_refused(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "hole")
    rename(folder / "model.safetensors", "layers.1.mlp.up_proj", "layers.1.mlp.gone")
    with pytest.raises(InputError, match=r"lacks 1 weights, language_model.layers.1.mlp.up_proj.weight first"):
        Retriever.load(folder)


@pytest.mark.slow
def test_colpali_engine_gives_the_same_vectors_of_the_same_tokens(interop, tmp_path):
    """In its own environment, which `python benchmarks/run.py interop` makes."""
    if not (interop.peers.ROOT / "colpali-engine" / "installed").exists():
        pytest.skip("colpali-engine is not installed: python benchmarks/run.py interop installs it")
    rows = list(interop.rows(tmp_path))
    assert len(rows) == 12 and all(row["loads"] and row["parity_error"] < 1e-4 for row in rows)


def test_a_page_is_one_picture_and_a_query_none(base, interop, work):
    model, page = Retriever.load(base), str(work / "page-0.png")
    with pytest.raises(InputError, match=r"document 'a': 2 pictures, but model.document_prompt has room for 1"):
        model.inputs.documents([interop.Document(id="a", images=(page, page))])
    with pytest.raises(InputError, match=r"query 'b': 1 pictures, but model.query_prompt has room for 0"):
        model.inputs.queries([interop.Query(id="b", text="this one", images=(page,))])
    with pytest.raises(InputError, match=r"document 'c': nothing left of it under model.document_fields"):
        model.inputs.documents([interop.Document(id="c", text="only words")])
