import json

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from colmrl.cli.main import main_app
from colmrl.configure import load_config
from colmrl.data.records import Document
from colmrl.errors import InputError
from colmrl.models.merging import merge
from colmrl.models.retriever import Retriever
from colmrl.models.tiny import write_tiny_model


def make(folder, out, seed, *overrides):
    base = [f"model.backbone={folder}", "multi.dims=[64,16]", "single.dims=[64]", "single.projection=64"]
    model = Retriever.create(load_config(None, [*base, *overrides])).eval()
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    model.save(out)
    return out


def effective(model):
    """Name → the weight that a layer really multiplies by, LoRA added."""
    weights = {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            weights[name] = module.base_layer.weight + module.get_delta_weight("default")
        elif isinstance(module, torch.nn.Linear) and "lora_" not in name and "base_layer" not in name:
            weights[name] = module.weight
    return weights


@pytest.mark.parametrize("family", ["qwen3", "internvl", "bert"])
@pytest.mark.parametrize("tuning", ["full", "lora", "frozen"])
def test_the_merged_weights_are_the_weighted_mean_of_the_effective_weights(tuning, family, tiny, tmp_path):
    folders = [make(tiny(family), tmp_path / name, seed, f"model.tuning={tuning}") for seed, name in enumerate("abc")]
    shares = [0.5, 0.3, 0.2]
    merged = effective(Retriever.load(merge(folders, shares, tmp_path / "m")))
    parts = [effective(Retriever.load(folder)) for folder in folders]
    assert merged.keys() == parts[0].keys() and len(merged) > 20
    for name, weight in merged.items():
        expected = sum(share * part[name] for share, part in zip(shares, parts, strict=True))
        assert torch.allclose(weight, expected, atol=1e-6), name


def test_merged_lora_of_unlike_rank_can_be_merged_again(tiny, tmp_path):
    folders = [make(tiny("qwen3"), tmp_path / name, seed, "model.tuning=lora") for seed, name in enumerate("ab")]
    model = Retriever.load(merge(folders, None, tmp_path / "m"))
    assert (model.description.lora.r, model.description.lora.alpha) == (32, 64)
    again = merge([tmp_path / "m", folders[0]], [2, 1], tmp_path / "n")
    expected = [effective(Retriever.load(folder)) for folder in folders]
    for name, weight in effective(Retriever.load(again)).items():
        assert torch.allclose(weight, (2 * expected[0][name] + expected[1][name]) / 3, atol=1e-6), name


def test_a_merge_of_one_checkpoint_with_itself_is_that_checkpoint(tiny, tmp_path):
    folder = make(tiny("internvl"), tmp_path / "a", 0, "model.tuning=full", "model.attention=bidirectional")
    merged = Retriever.load(merge([folder, folder], [0.25, 0.75], tmp_path / "m")).eval()
    before = Retriever.load(folder).eval()
    batch = before.inputs.documents([Document("a", text="red circle")])
    with torch.no_grad():
        assert torch.allclose(before(batch).single, merged(batch).single, atol=1e-6)
    assert merged.description == before.description
    assert json.loads((tmp_path / "m/merge.json").read_text())["weights"] == [0.25, 0.75]


def test_checkpoints_of_unlike_recipes_or_bases_are_refused_with_what_differs(tiny, tmp_path):
    same = make(tiny("qwen3"), tmp_path / "a", 0, "model.tuning=lora")
    other = write_tiny_model("qwen3", tmp_path / "other", seed=1)
    for base, override, says in (
        (tiny("qwen3"), "model.query_prompt=Q {text}", r"model\.query_prompt"),
        (tiny("qwen3"), "multi.dims=[32]", r"multi\.dims"),
        (tiny("qwen3"), "model.tuning=frozen", r"model\.tuning"),
        (tiny("qwen3"), "lora.alpha=8", r"lora\.alpha/lora\.r"),
        (tiny("qwen3"), "lora.targets=.*q_proj", r"lora\.targets"),
        (tiny("qwen3"), "model.attention=bidirectional", r"model\.attention"),
        (other, "seed=0", r"model\.backbone"),
    ):
        unlike = make(base, tmp_path / "b", 1, "model.tuning=lora", override)
        with pytest.raises(InputError, match=rf"differs from .*a in {says}"):
            merge([same, unlike], None, tmp_path / "m")
    cooler = make(tiny("qwen3"), tmp_path / "b", 1, "model.tuning=lora", "single.temperature=1", "lora.dropout=0.3")
    assert merge([same, cooler], None, tmp_path / "m").is_dir()
    with pytest.raises(InputError, match="exists and is not empty"):
        merge([same, cooler], None, tmp_path / "m")


def test_the_command_merges_and_says_what_is_wrong_with_its_shares(tiny, tmp_path):
    a, b = (str(make(tiny("qwen3"), tmp_path / name, seed)) for seed, name in enumerate("ab"))
    for arguments, says in (
        ([a, "--out", "m"], "1 checkpoint: give two"),
        ([a, b, "--weights", "1", "--out", "m"], "1 for 2 checkpoints"),
        ([a, b, "--weights", "1,x", "--out", "m"], "not numbers"),
        ([a, b, "--weights", "1,-1", "--out", "m"], "-1: is not positive"),
        ([a, str(tmp_path), "--out", "m"], "not a colmrl checkpoint"),
    ):
        result = CliRunner().invoke(main_app, ["merge", *arguments])
        assert result.exit_code == 2 and says in result.stderr, result.stderr
    done = CliRunner().invoke(main_app, ["merge", a, b, "--weights", "3,1", "--out", str(tmp_path / "m")])
    assert done.exit_code == 0, done.stderr
    weights = [load_file(f"{folder}/heads.safetensors")["multi.projection.weight"] for folder in (a, b, tmp_path / "m")]
    assert torch.allclose(weights[2], 0.75 * weights[0] + 0.25 * weights[1], atol=1e-7)
