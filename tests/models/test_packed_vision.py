"""Towers that take all patches at once: sped up, they give what transformers gives."""

import pytest
import torch
from conftest import VISION
from PIL import Image
from torch import nn
from transformers import AutoModel

from colmrl.config import ModelConfig
from colmrl.data.records import Document
from colmrl.models.backbone import Backbone
from colmrl.models.inputs import InputBuilder
from colmrl.models.packed_vision import speed_up_vision
from colmrl.models.processors import load_processor

PACKED = [family for family in VISION if family != "internvl"]
MIXED, EQUAL = ((16, 16), (64, 48), (32, 96), (64, 48)), ((48, 64), (48, 64))


def pages(tmp_path, family, tiny, sizes):
    documents = []
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number}.png"
        Image.effect_noise(size, 90).convert("RGB").save(path)
        documents.append(Document(str(number), "red ring", images=(str(path),)))
    return InputBuilder(load_processor(str(tiny(family)), None, None), ModelConfig()).documents(documents)


def states_and_gradients(backbone, batch):
    hidden, mask = backbone(batch)
    hidden[mask].square().mean().backward()
    found = {name: p.grad for name, p in backbone.model.named_parameters() if p.grad is not None}
    backbone.zero_grad()
    return hidden[mask].detach(), found


@pytest.mark.parametrize("sizes", [MIXED, EQUAL])
@pytest.mark.parametrize("family", PACKED)
def test_states_and_gradients_are_those_of_transformers(family, sizes, tiny, tmp_path):
    batch, fast = pages(tmp_path, family, tiny, sizes), Backbone.load(str(tiny(family)))
    plain = Backbone(AutoModel.from_pretrained(tiny(family)))
    assert fast.model.config.vision_config._attn_implementation != plain.model.config.vision_config._attn_implementation
    (states, gradients), (wanted, theirs) = states_and_gradients(fast, batch), states_and_gradients(plain, batch)
    assert torch.allclose(states, wanted, atol=1e-5) and gradients.keys() == theirs.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, theirs[name], atol=1e-6 + 1e-4 * float(theirs[name].abs().max())), name


@pytest.mark.parametrize("family", PACKED)
def test_the_kernel_is_called_once_for_pictures_of_one_size(family, tiny, tmp_path, monkeypatch):
    backbone, calls = Backbone.load(str(tiny(family))), []
    kernel = nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(a[0].shape) or kernel(*a, **k)
    )
    batch = pages(tmp_path, family, tiny, ((64, 64),) * 4)
    backbone.image_features(batch)
    assert len(calls) == backbone.model.config.vision_config.depth and all(shape[0] >= 4 for shape in calls)


def test_what_is_not_packed_or_has_another_kernel_is_left_alone(tiny):
    for family, kernel in (("internvl", "sdpa"), ("bert", "sdpa"), ("qwen2_5_vl", "eager")):
        model = AutoModel.from_pretrained(tiny(family), attn_implementation=kernel)
        speed_up_vision(model)
        assert getattr(model.config, "vision_config", model.config)._attn_implementation == kernel
        assert all(type(m) is nn.Conv3d for m in model.modules() if isinstance(m, nn.Conv3d))


def test_a_saved_model_says_nothing_of_it(tiny, tmp_path):
    Backbone.load(str(tiny("qwen2_5_vl"))).model.save_pretrained(tmp_path / "saved")
    assert "colmrl" not in (tmp_path / "saved/config.json").read_text()
    again = AutoModel.from_pretrained(tmp_path / "saved")
    assert again.config.vision_config._attn_implementation == "sdpa"
