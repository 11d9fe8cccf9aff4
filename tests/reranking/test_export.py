"""Qwen3-VL-Reranker's layout is opened, and ours is opened by sentence-transformers, with the same scores."""

import numpy as np
import pytest
import torch
from conftest import VISION
from PIL import Image
from sentence_transformers import CrossEncoder
from writing import write_answering_model

from colmrl.config import RerankConfig
from colmrl.configure import load_config
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.reranking.export import export_cross_encoder
from colmrl.reranking.pointwise import PointwiseModel
from colmrl.reranking.reranker import Reranker, open_reranker

TEXTS = ["red circle", "blue star, it seems.", "green ring and a black cross"]


def shown(document):
    """A document as sentence-transformers takes it."""
    if not document.images:
        return document.text
    picture = {"image": Image.open(document.images[0]).convert("RGB")}
    return picture | ({"text": document.text} if document.text else {})


@pytest.mark.parametrize("family", [*VISION, "qwen3"])
def test_an_exported_cross_encoder_gives_the_same_scores(family, tiny, sample, tmp_path, processors_without_video):
    folder = write_answering_model(tiny(family), tmp_path / "base")
    settings = ["task=pointwise", f"model.backbone={folder}", "rerank.score=yes_no", "model.tuning=lora"]
    model = PointwiseModel.create(load_config(None, [*settings, 'rerank.instruction=Find "it",\nplease.']))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    model.save(tmp_path / "c")
    pictures = [str(path) for path in sorted((sample / "test/images").iterdir())]
    documents = [Document(f"d{i}", text) for i, text in enumerate(TEXTS)]
    if family in VISION:
        documents += [Document("p", "", images=(pictures[0],)), Document("b", "red", images=(pictures[1],))]
    ours = open_reranker(tmp_path / "c").score(Query("q", "what?"), documents)
    theirs = CrossEncoder(str(export_cross_encoder(tmp_path / "c", tmp_path / "e")), device="cpu")
    pairs = [("what?", shown(document)) for document in documents]
    assert np.allclose(theirs.predict(pairs), ours, atol=1e-4) and np.ptp(ours) > 1e-3
    assert np.allclose(theirs.predict(pairs, batch_size=1), ours, atol=1e-4)
    ranked = [row["corpus_id"] for row in theirs.rank("what?", TEXTS)]
    assert ranked == np.argsort(-ours[:3]).tolist()
    other = theirs.predict(pairs, prompt="Another task.")
    assert not np.allclose(other, ours, atol=1e-4)
    changed = RerankConfig(instruction="Another task.", score="yes_no")
    model.prompt = type(model.prompt)(model.processor, model.description.model, changed)
    expected = [torch.sigmoid(model.eval()(model.prompt.whole(Query("q", "what?"), [d])[0])).item() for d in documents]
    assert np.allclose(other, expected, atol=1e-4)


def test_a_published_checkpoint_is_opened_as_it_is(tiny, tmp_path):
    folder = write_answering_model(tiny("qwen3_vl"), tmp_path / "Qwen3-VL-Reranker-Tiny")
    reranker = open_reranker(folder, RerankConfig(batch_size=2, instruction="Find."))
    assert isinstance(reranker, Reranker) and reranker.name == "Qwen3-VL-Reranker-Tiny"
    documents = [Document(str(i), text) for i, text in enumerate(TEXTS)]
    same = PointwiseModel.create(
        load_config(
            None, ["task=pointwise", f"model.backbone={folder}", "rerank.score=yes_no", "rerank.instruction=Find."]
        )
    ).eval()
    with torch.no_grad():
        expected = [torch.sigmoid(same(same.prompt.whole(Query("q", "x"), [d])[0])).item() for d in documents]
    assert np.allclose(reranker.score(Query("q", "x"), documents), expected, atol=1e-5)
    with pytest.raises(InputError, match=r"a qwen3 without reranker\.json"):
        open_reranker(tiny("qwen3"))


def test_only_yes_no_is_exported(tiny, tmp_path):
    model = PointwiseModel.create(load_config(None, ["task=pointwise", f"model.backbone={tiny('qwen3')}"]))
    model.save(tmp_path / "c")
    with pytest.raises(InputError, match=r"a classifier reranker: only rerank\.score=yes_no"):
        export_cross_encoder(tmp_path / "c", tmp_path / "e")
