import pytest
import torch

from colmrl.configure import load_config
from colmrl.data.records import Document
from colmrl.models.retriever import Retriever


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl", "qwen3"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_gradient_checkpointing_changes_no_gradient(family, tuning, tiny, sample):
    config = load_config(None, [f"model.backbone={tiny(family)}", f"model.tuning={tuning}"])
    images = [str(p) for p in sorted((sample / "test/images").iterdir())[:2]] if family != "qwen3" else []
    documents = [Document(str(n), text="red", images=tuple(images[n : n + 1])) for n in range(2)]

    def gradients(checkpointing):
        model = Retriever.create(config).train()
        if checkpointing:
            model.backbone.checkpoint_gradients()
        out = model(model.inputs.documents(documents))
        (out.single[0] @ out.single[1] + out.multi.vectors.std()).backward()
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    assert any("backbone" in name for name in plain)
    for name, gradient in plain.items():
        assert torch.allclose(gradient, checkpointed[name], atol=1e-6), name
