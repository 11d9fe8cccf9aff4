import json
import shutil

import numpy as np
import pytest
import torch
from conftest import FAMILIES
from PIL import Image
from torch.nn import functional as F

from colmrl.config import ModelConfig
from colmrl.configure import load_config
from colmrl.data.records import Document
from colmrl.errors import InputError
from colmrl.models import retriever
from colmrl.models.description import read_own
from colmrl.models.heads import pool
from colmrl.models.initialising import take_over
from colmrl.models.retriever import Retriever, fingerprint
from colmrl.scoring import truncate


def make(folder, *overrides):
    return Retriever.create(load_config(None, [f"model.backbone={folder}", "multi.dims=[64,16]", *overrides])).eval()


def embed(model):
    batch = model.inputs.documents([Document("a", text="red circle"), Document("b", text="blue ring top left")])
    with torch.no_grad():
        return model(batch)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tuning", ["full", "lora", "frozen"])
def test_a_checkpoint_reloads_bit_equal_without_a_pickle(family, tuning, tiny, tmp_path):
    model = make(tiny(family), f"model.tuning={tuning}", "single.projection=128")
    for p in model.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.05)  # LoRA's B starts at zero, which would hide that it was lost
    model.save(tmp_path / "c")
    again = Retriever.load(tmp_path / "c").eval()
    before, after = embed(model), embed(again)
    assert torch.equal(before.single, after.single)
    assert torch.equal(before.multi.vectors, after.multi.vectors)
    for (name, old), (new_name, new) in zip(
        sorted(model.state_dict().items()), sorted(again.state_dict().items()), strict=True
    ):
        assert name == new_name and torch.equal(old, new)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, p in again.named_parameters() if p.requires_grad
    }
    kinds = {path.suffix for path in (tmp_path / "c").rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".jinja", ".txt", ".md"}


def test_a_fingerprint_changes_with_weights_prompt_and_pixel_budget(tiny, tmp_path):
    settings = {
        "same": [],
        "prompt": ["model.query_prompt=q {text}"],
        "pixels": ["model.max_pixels=1024"],
        "seed": ["seed=1"],
    }
    stamps = {}
    for name, overrides in {"first": [], **settings}.items():
        make(tiny("qwen3_vl"), *overrides).save(tmp_path / name)
        stamps[name] = fingerprint(tmp_path / name)
    assert stamps["first"] == stamps["same"] and len(set(stamps.values())) == 4


def test_pictures_of_a_checkpoint_are_resized_as_when_it_was_trained(tiny, tmp_path):
    """An older one's by Pillow, also when it is trained on; and a store knows which it was."""
    make(tiny("qwen3_vl"), "model.max_pixels=4096").save(tmp_path / "new")
    file = shutil.copytree(tmp_path / "new", tmp_path / "old") / "colmrl.json"
    content = json.loads(file.read_text())
    del content["model"]["resize"]  # as it was written before there was this setting
    file.write_text(json.dumps(content))
    noise = np.random.default_rng(0).integers(0, 256, (420, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    page = Document("a", images=(str(tmp_path / "a.png"),))
    new, old = (Retriever.load(tmp_path / name) for name in ("new", "old"))
    made = [model.inputs.documents([page])["pixel_values"] for model in (new, old)]
    assert 0 < (made[0] - made[1]).abs().max() < 0.02
    assert (new.description.model.resize, old.description.model.resize) == ("torch", "pil")
    assert fingerprint(tmp_path / "new") != fingerprint(tmp_path / "old")
    settings = [f"model.backbone={tiny('qwen3_vl')}", "multi.dims=[64,16]", "model.max_pixels=4096"]
    assert take_over(load_config(None, settings), tmp_path / "old").description.model.resize == "pil"


def test_an_older_checkpoint_that_sees_nothing_is_as_a_new_one(tiny, tmp_path):
    make(tiny("qwen3")).save(tmp_path)
    content = json.loads((tmp_path / "colmrl.json").read_text())
    del content["model"]["resize"]
    (tmp_path / "colmrl.json").write_text(json.dumps(content))
    assert read_own(tmp_path).model.resize == "torch"


def test_a_fingerprint_of_anothers_model_tells_how_its_pictures_are_resized(tiny, monkeypatch):
    before = {family: fingerprint(tiny(family)) for family in ("qwen3", "qwen3_vl")}
    monkeypatch.setattr(retriever, "ModelConfig", lambda: ModelConfig(resize="pil"))
    assert fingerprint(tiny("qwen3")) == before["qwen3"] and fingerprint(tiny("qwen3_vl")) != before["qwen3_vl"]


def test_a_lora_checkpoint_refuses_a_base_that_changed(tiny, tmp_path):
    base = shutil.copytree(tiny("qwen3"), tmp_path / "base")
    make(base, "model.tuning=lora").save(tmp_path / "c")
    shutil.rmtree(base)
    with pytest.raises(InputError, match=r"model\.backbone.*cannot be loaded"):
        Retriever.load(tmp_path / "c")
    from colmrl.models.tiny import write_tiny_model

    write_tiny_model("qwen3", base, seed=1)
    with pytest.raises(InputError, match="other base weights"):
        Retriever.load(tmp_path / "c")


def test_what_is_no_checkpoint_is_said(tmp_path, checkpoint):
    with pytest.raises(InputError, match="not a colmrl checkpoint"):
        Retriever.load(tmp_path)
    broken = shutil.copytree(checkpoint, tmp_path / "c")
    content = json.loads((broken / "colmrl.json").read_text())
    (broken / "colmrl.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(InputError, match="format: 99"):
        Retriever.load(broken)
    (broken / "colmrl.json").write_text("{}")
    with pytest.raises(InputError, match="cannot be read"):
        Retriever.load(broken)


def test_more_dims_than_the_backbone_has_are_refused(tiny):
    with pytest.raises(InputError, match="512 is more than the backbone's 128"):
        make(tiny("qwen3"), "single.dims=[512]")


def test_a_head_that_is_not_asked_for_is_not_there(tiny):
    embedded = embed(make(tiny("qwen3"), "multi.dims=[]"))
    assert embedded.multi is None and embedded.single.shape == (2, 128)


def test_both_heads_are_normalised_and_multi_keeps_every_token(tiny):
    model = make(tiny("qwen3"))
    embedded = embed(model)
    lengths = [len(model.inputs.tokenizer.tokenize(t)) for t in ("red circle", "blue ring top left")]
    assert embedded.multi.counts.tolist() == lengths
    assert torch.allclose(embedded.multi.vectors.norm(dim=1), torch.ones(sum(lengths)))
    assert torch.allclose(truncate(embedded.single, 16), F.normalize(embedded.single[:, :16], dim=1))


@pytest.mark.parametrize("side", ["left", "right"])
def test_pooling_sees_tokens_only_on_either_side(side):
    tokens = torch.arange(6.0).reshape(3, 2)
    hidden = torch.full((2, 5, 2), 99.0)
    mask = torch.zeros(2, 5, dtype=torch.bool)
    where = slice(2, 5) if side == "left" else slice(0, 3)
    hidden[0, where], mask[0, where] = tokens, True
    hidden[1], mask[1] = torch.arange(10.0).reshape(5, 2), True
    assert pool(hidden, mask, "mean")[0].tolist() == [2.0, 3.0]
    assert pool(hidden, mask, "last")[0].tolist() == [4.0, 5.0]
    assert pool(hidden, mask, "cls")[0].tolist() == [0.0, 1.0]
    assert pool(hidden, mask, "last")[1].tolist() == [8.0, 9.0]
