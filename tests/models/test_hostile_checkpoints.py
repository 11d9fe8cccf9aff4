"""No pickle and no code of a checkpoint's own is ever run; what is cut, damaged or of other types is said by name."""

import json
import pickle
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from colmrl.config import ModelConfig
from colmrl.configure import load_config
from colmrl.data.records import Query
from colmrl.errors import InputError
from colmrl.models.backbone import Backbone
from colmrl.models.generator import Generator
from colmrl.models.processors import load_processor
from colmrl.models.retriever import Retriever


class Marking:
    """What, unpickled, leaves a file behind."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def pickled(path, marker):
    path.write_bytes(pickle.dumps({"weight": Marking(marker)}))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)  # as its own guard says; an unguarded one runs it:
    pickle.loads(path.read_bytes())
    marker.unlink()


@pytest.mark.parametrize("load", [Backbone.load, Generator.load], ids=["backbone", "generator"])
def test_pickled_weights_are_refused_unread(load, tiny, tmp_path):
    folder, marker = tmp_path / "model", tmp_path / "was run"
    shutil.copytree(tiny("internvl"), folder)
    (folder / "model.safetensors").unlink()
    pickled(folder / "pytorch_model.bin", marker)
    with pytest.raises(
        InputError, match=r"no safetensors \(pytorch_model.bin, a pickle, can run code .*save_pretrained"
    ):
        load(str(folder))
    assert not marker.exists()
    torch.save(AutoModel.from_pretrained(tiny("internvl")).state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="a pickle, can run code"):  # nor one that is harmless
        load(str(folder))


def test_code_of_its_own_is_refused_and_not_asked_about(tiny, tmp_path, monkeypatch):
    folder, marker = tmp_path / "model", tmp_path / "was run"
    shutil.copytree(tiny("qwen3"), folder)
    config = json.loads((folder / "config.json").read_text())
    kinds = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoTokenizer": "own.Tokenizer"}
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "unknown", "auto_map": kinds}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    said = r"auto_map: the model asks to run Python of its own \(trust_remote_code\), which is never done"
    for load in (Backbone.load, lambda source: load_processor(source, None, None), Generator.load):
        with pytest.raises(InputError, match=said):
            load(str(folder))
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": kinds}))  # of a family that is known
    assert Backbone.load(str(folder)).family == "qwen3" and load_processor(str(folder), None, None)
    assert not marker.exists()


@pytest.fixture(scope="module")
def adapted(tiny, tmp_path_factory):
    """A checkpoint with an adapter and heads."""
    folder = tmp_path_factory.mktemp("adapted") / "checkpoint"
    options = [f"model.backbone={tiny('qwen3')}", "model.tuning=lora", "multi.dims=[16]", "single.dims=[16]"]
    Retriever.create(load_config(None, [*options, "single.projection=16"])).save(folder)
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[:-10])


def huge_header(path):
    path.write_bytes(struct.pack("<Q", 1 << 60) + path.read_bytes()[8:])


def no_tensors(path):
    path.write_bytes(b'\x08\0\0\0\0\0\0\0{"a": 1}')


def empty(path):
    path.write_bytes(b"")


def other_types(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"single": [1], "model": "x"}))


def a_list(path):
    path.write_text("[1]")


def pickle_instead(path):
    pickled(path.with_name("adapter_model.bin"), path.with_name("marker"))
    path.unlink()


DAMAGE = [(name, damage) for name in ("heads.safetensors", "adapter/adapter_model.safetensors")
          for damage in (cut, huge_header, no_tensors, empty)]  # fmt: skip
DAMAGE += [("colmrl.json", damage) for damage in (cut, other_types, a_list, empty)]
DAMAGE += [("adapter/adapter_config.json", cut), ("adapter/adapter_config.json", a_list)]
DAMAGE += [("processor/tokenizer.json", cut), ("processor/tokenizer.json", a_list), ("processor/config.json", a_list)]
DAMAGE += [("adapter/adapter_model.safetensors", pickle_instead)]


@pytest.mark.parametrize(("name", "damage"), DAMAGE, ids=[f"{n}-{d.__name__}" for n, d in DAMAGE])
def test_a_damaged_checkpoint_is_said_by_name(name, damage, adapted, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(adapted, folder)
    damage(folder / name)
    with pytest.raises(InputError, match=str(folder / name.partition("/")[0])):
        Retriever.load(folder)
    assert not list(folder.rglob("marker"))


@pytest.mark.parametrize(
    ("name", "remains"), [("tokenizer.json", 99), ("tokenizer_config.json", 99), ("chat_template.jinja", -12)]
)
def test_the_processors_file_that_is_cut_is_named(name, remains, checkpoint, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, folder)
    path = folder / "processor" / name
    path.write_bytes(path.read_bytes()[:remains])
    with pytest.raises(InputError, match=rf"{folder}/processor.*{name}") as said:
        Retriever.load(folder).inputs.queries([Query("q", "a circle")])
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no roles here') }}", "no roles here"),
        ("{{ messages.none.none }}", "no attribute"),
        ("", ""),
    ],
)
def test_a_template_that_cannot_be_used_is_said(template, said, checkpoint, tmp_path):
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, folder)
    (folder / "processor/chat_template.jinja").write_text(template)
    with pytest.raises(InputError, match=rf"processor: chat_template\.jinja .* cannot be used: .*{said}"):
        Retriever.load(folder).inputs.queries([Query("q", "a circle")])


def test_heads_of_another_shape_or_name_are_said(adapted, tmp_path):
    from safetensors.torch import save_file

    folder = tmp_path / "checkpoint"
    shutil.copytree(adapted, folder)
    heads = load_file(folder / "heads.safetensors")
    for others, said in (
        ({name: tensor[:, :-1].contiguous() for name, tensor in heads.items()}, "heads.safetensors: cannot be loaded"),
        ({"other": torch.zeros(1)}, r"heads.safetensors: has other that its description does not, and lacks "),
    ):
        save_file(others, folder / "heads.safetensors")
        with pytest.raises(InputError, match=said):
            Retriever.load(folder)


def test_base_weights_that_are_cut_are_said(tiny, tmp_path):
    shutil.copytree(tiny("bert"), tmp_path / "model")
    for damage in (cut, huge_header, no_tensors):
        shutil.copy(tiny("bert") / "model.safetensors", tmp_path / "model")
        damage(tmp_path / "model/model.safetensors")
        with pytest.raises(InputError, match=r"model\.backbone: .*model': cannot be loaded.*model\.safetensors is not"):
            Backbone.load(str(tmp_path / "model"), ModelConfig())
    (tmp_path / "model/config.json").write_text('{"model_type": "bert", "hidden_size": "wide"}')
    with pytest.raises(InputError, match=r"model\.backbone: .*model': cannot be loaded"):
        Backbone.load(str(tmp_path / "model"), ModelConfig())
