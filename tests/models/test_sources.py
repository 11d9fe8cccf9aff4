"""Other libraries' folders give the vectors that the library itself gives; what cannot be read is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

from colmrl.config import DenseConfig, ExpansionConfig
from colmrl.configure import load_config
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.models.initialising import take_over
from colmrl.models.retriever import Embeddings, Retriever, fingerprint, read_description

TEXTS = ["a red circle, and a Blue star!", "small (green) square; left of it.", "circle " * 70]


def embed(model: Retriever, kind: str) -> Embeddings:
    made = {
        "query": lambda: model.inputs.queries([Query(str(i), text) for i, text in enumerate(TEXTS)]),
        "document": lambda: model.inputs.documents([Document(str(i), text) for i, text in enumerate(TEXTS)]),
    }[kind]()
    with torch.inference_mode():
        return model.eval()(made)


def assert_dense(folder: Path, model: Retriever, atol: float = 2e-6) -> None:
    theirs = SentenceTransformer(str(folder), device="cpu")
    for kind, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        single = embed(model, kind).single
        assert single is not None
        expected = torch.nn.functional.normalize(torch.from_numpy(encode(TEXTS)), dim=-1)
        torch.testing.assert_close(single, expected, atol=atol, rtol=0)


def assert_multi(folder: Path, model: Retriever, atol: float = 2e-6) -> None:
    theirs = MultiVectorEncoder(str(folder), device="cpu")
    for kind, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        multi, expected = embed(model, kind).multi, encode(TEXTS)
        assert multi is not None
        assert np.diff(multi.offsets).tolist() == [len(each) for each in expected]
        torch.testing.assert_close(multi.vectors, torch.from_numpy(np.concatenate(expected)), atol=atol, rtol=0)


def save_dense(tiny, out: Path, family: str = "bert", *dense: Dense, pooling: str = "mean", **of_transformer) -> Path:
    first = Transformer(str(tiny(family)), max_seq_length=40, **of_transformer)
    modules = [first, Pooling(128, pooling), *dense, Normalize()]
    prompts = {"query": "find: ", "document": "a page: "}
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save(str(out), create_model_card=False)
    return out


def save_multi(tiny, out: Path, *dense: Dense, mask: MultiVectorMask | None = None, **of_transformer) -> Path:
    modules = [Transformer(str(tiny("bert")), **of_transformer), *dense, mask or MultiVectorMask()]
    prompts = {"query": "find ", "document": ""}
    model = MultiVectorEncoder(modules=[*modules, Normalize("token_embeddings")], prompts=prompts, device="cpu")
    model.save(str(out), create_model_card=False)
    return out


def tokens(width: int, given: int = 128, **options) -> Dense:
    return Dense(
        given, width, **{"activation_function": nn.Identity(), "module_input_name": "token_embeddings"} | options
    )


@pytest.fixture(scope="module")
def dense(tiny, tmp_path_factory) -> Path:
    return save_dense(tiny, tmp_path_factory.mktemp("dense") / "model")


@pytest.fixture(scope="module")
def multi(tiny, tmp_path_factory) -> Path:
    mask = MultiVectorMask([",", "!", "(", "circle"])
    expansion = {"strategy": "fixed", "length": 20}
    layer = tokens(48, bias=True)
    out = tmp_path_factory.mktemp("multi") / "model"
    return save_multi(tiny, out, layer, mask=mask, query_expansion=expansion, document_length=30)


def test_a_dense_model_gives_the_vectors_of_its_library(dense):
    description = read_description(dense)
    assert description.single.dims == (128,) and description.single.pooling == "mean" and not description.multi.dims
    assert description.model.query_prompt == "find: {text}" and description.model.document_prompt == "a page: {text}"
    assert description.model.max_query_tokens == 40
    assert_dense(dense, Retriever.load(dense))


@pytest.mark.parametrize(
    ("family", "pooling", "layers", "options"),
    [
        ("bert", "cls", [Dense(128, 48)], {}),
        ("bert", "mean_sqrt_len_tokens", [Dense(128, 48, bias=False, activation_function=nn.Identity())], {}),
        ("qwen3", "lasttoken", [], {"do_lower_case": True}),
        ("qwen3", "mean", [Dense(128, 64, activation_function=nn.GELU(), use_residual=True), Dense(64, 64)], {}),
    ],
)
def test_every_pooling_and_dense_layer_is_read(tiny, tmp_path, family, pooling, layers, options):
    folder = save_dense(tiny, tmp_path / "model", family, *layers, pooling=pooling, **options)
    assert_dense(folder, Retriever.load(folder))


def test_a_multi_vector_encoder_gives_the_vectors_of_its_library(multi):
    description = read_description(multi)
    assert description.multi.dims == (48,) and description.multi.bias and not description.single.dims
    assert description.model.query_expansion == ExpansionConfig(20) and description.model.max_query_tokens == 20
    assert description.model.document_skiplist == (",", "!", "(", "circle")
    assert_multi(multi, Retriever.load(multi))


@pytest.mark.parametrize("attend", [False, True])
def test_a_least_length_of_queries_and_a_skiplist_of_both_are_read(tiny, tmp_path, attend):
    expansion = {"strategy": "min", "length": 12, "attend": attend, "token": "star"}
    mask = MultiVectorMask(["!"], skiplist_tasks=["query", "document"])
    layers = [tokens(64, activation_function=nn.ReLU(), use_residual=True), tokens(32, 64, bias=False)]
    folder = save_multi(tiny, tmp_path / "m", *layers, mask=mask, query_expansion=expansion, query_length=24)
    assert read_description(folder).multi.dense == (DenseConfig(64, True, "relu", True),)
    assert_multi(folder, Retriever.load(folder))


def test_without_a_dense_layer_the_hidden_states_are_the_vectors(tiny, tmp_path):
    folder = save_multi(tiny, tmp_path / "model")
    description = read_description(folder)
    assert description.multi.dims == (128,) and not description.multi.projection
    assert_multi(folder, Retriever.load(folder))


def test_one_folder_may_have_both_heads(tiny, tmp_path):
    modules = [Transformer(str(tiny("bert"))), Pooling(128), tokens(32, bias=False), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(tmp_path / "model"), create_model_card=False)
    description = read_description(tmp_path / "model")
    assert description.single.dims == (128,) and description.multi.dims == (32,)
    model = Retriever.load(tmp_path / "model")
    assert_dense(tmp_path / "model", model)
    assert_multi(tmp_path / "model", model)


@pytest.mark.parametrize("which", ["dense", "multi"])
def test_what_was_read_and_saved_is_loaded_again(which, tmp_path, request):
    folder = request.getfixturevalue(which)
    model = Retriever.load(folder)
    model.save(tmp_path / "saved")
    {"dense": assert_dense, "multi": assert_multi}[which](folder, Retriever.load(tmp_path / "saved"))


@pytest.mark.parametrize("tuning", ["full", "lora", "frozen"])
def test_training_begins_with_its_vectors_and_keeps_its_settings(multi, tmp_path, tuning):
    options = [f"model.tuning={tuning}", "multi.dims=[48,16]", "single.dims=[]", f"model.backbone={multi}"]
    model = take_over(load_config(None, options), multi)
    assert_multi(multi, model)
    model.save(tmp_path / "saved")
    assert_multi(multi, Retriever.load(tmp_path / "saved"))
    assert read_description(tmp_path / "saved").multi.dims == (48, 16)


def test_its_base_is_the_backbone_where_none_is_named(dense, caplog):
    with caplog.at_level("INFO", "colmrl"):
        model = take_over(load_config(None, ["single.dims=[128,64]", "multi.dims=[32]"]), dense)
    assert_dense(dense, model)
    assert model.multi is not None and "model.query_prompt=find: {text}" in caplog.text and "new: multi" in caplog.text


def test_nested_dims_are_read_off_the_model_card(dense, tmp_path):
    folder = shutil.copytree(dense, tmp_path / "model")
    (folder / "README.md").write_text('{\n "matryoshka_dims": [\n 128,\n 64,\n 32\n ]}')
    assert read_description(folder).single.dims == (128, 64, 32)


def test_its_fingerprint_changes_with_its_weights_and_settings_only(dense, tmp_path):
    folder = shutil.copytree(dense, tmp_path / "model")
    (folder / "README.md").write_text("other words")
    assert fingerprint(folder) == fingerprint(dense)
    (folder / "1_Pooling" / "config.json").write_text("{}")
    assert fingerprint(folder) != fingerprint(dense)


def edited(folder: Path, out: Path, file: str, change) -> Path:
    copy = shutil.copytree(folder, out)
    content = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps(change(content) or content))
    return copy


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("config.json", lambda c: c.update(auto_map={"AutoModel": "modeling.X"}), "auto_map.*trust_remote_code"),
        ("modules.json", lambda c: c[0].update(type="custom_st.Transformer"), "custom_st.*trust_remote_code"),
        ("modules.json", lambda c: c[1].update(type="sentence_transformers.models.LSTM"), "LSTM: cannot be read"),
        ("modules.json", lambda c: c[1:], "does not begin with a Transformer"),
        ("1_Pooling/config.json", lambda c: c.update(pooling_mode="max"), "pooling: max: cannot be done"),
        ("1_Pooling/config.json", lambda c: c.update(include_prompt=False), "without the prompt cannot be done"),
    ],
)
def test_what_cannot_be_done_is_refused(dense, tmp_path, file, change, says):
    with pytest.raises(InputError, match=says):
        Retriever.load(edited(dense, tmp_path / "model", file, change))


def test_pickled_weights_are_refused(multi, tmp_path):
    folder = shutil.copytree(multi, tmp_path / "model")
    (folder / "1_Dense" / "model.safetensors").rename(folder / "1_Dense" / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled"):
        Retriever.load(folder)


def test_vectors_whose_length_means_something_are_refused(tiny, tmp_path):
    modules = [Transformer(str(tiny("bert"))), Pooling(128)]
    model = SentenceTransformer(modules=modules, similarity_fn_name="dot", device="cpu")
    model.save(str(tmp_path / "model"), create_model_card=False)
    with pytest.raises(InputError, match="compared by dot"):
        read_description(tmp_path / "model")


def test_a_bare_backbone_an_empty_folder_and_none_are_told_apart(tiny, tmp_path):
    with pytest.raises(InputError, match=r"a bare backbone .*model\.backbone="):
        read_description(tiny("bert"))
    with pytest.raises(InputError, match=r"no colmrl\.json.*modules\.json"):
        read_description(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_description(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"^: not a colmrl checkpoint \(no name\)"):
        read_description("")
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    with pytest.raises(InputError, match=r"the run of one: give .*/run/checkpoint$"):
        read_description(tmp_path / "run")


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("Got: ConnectError: [Errno -2] Name or service not known", "the hub cannot be reached"),
        ("404 Client Error: Repository Not Found", "the hub does not give it"),
    ],
)
def test_a_hub_that_is_away_and_one_that_lacks_a_model_are_told_apart(monkeypatch, reason, says):
    def snapshot_download(*_, **__):
        raise OSError(reason)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(InputError, match=f"owner/model: no such folder here, and {says}"):
        read_description("owner/model")


def test_a_hub_id_is_downloaded_without_pickles(dense, monkeypatch):
    asked = {}

    def snapshot_download(name, allow_patterns, ignore_patterns):
        asked.update(name=name, allowed=allow_patterns)
        return str(dense)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert read_description("owner/some-model") == read_description(dense)
    assert asked["name"] == "owner/some-model"
    assert not any("bin" in pattern or pattern in ("*", "*.pt") for pattern in asked["allowed"])
