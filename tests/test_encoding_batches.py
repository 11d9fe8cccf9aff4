"""Which records are encoded together, and that it changes nothing."""

import numpy as np
import pytest
import torch
from PIL import Image

from colmrl.configure import load_config
from colmrl.data.records import Document
from colmrl.encoding import embed
from colmrl.models import batching
from colmrl.models.retriever import Retriever


def test_batches_hold_so_many_records_and_tokens_at_most_the_longest_first():
    lengths = [10.0, 700, 30, 500, 20, 480, 40, 0]
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert batching.batches(lengths, 3, cpu) == [[1], [3, 5], [6, 2, 4], [0, 7]]
    assert batching.batches(lengths, 3, gpu) == [[1, 3, 5], [6, 2, 4], [0, 7]]
    assert batching.batches([5000.0, 5000], 8, cpu) == [[0], [1]]  # what is longer stands alone
    assert batching.batches([], 8, cpu) == []


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> list[Document]:
    folder, documents = tmp_path_factory.mktemp("pages"), [Document("t", "a blue star and a red circle")]
    random = np.random.default_rng(0)
    for number, (width, height) in enumerate([(16, 16), (64, 64), (160, 32), (24, 48), (200, 300)]):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        documents.append(Document(str(number), "", images=(str(folder / f"{number}.png"),)))
    return documents


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_small_batches_on_a_cpu_give_the_same_vectors(family, tiny, pages, monkeypatch):
    model = Retriever.create(load_config(None, [f"model.backbone={tiny(family)}"])).eval()
    expected = embed(model, "documents", pages, 8)
    monkeypatch.setattr(batching, "CPU_TOKENS", 20)
    found = embed(model, "documents", pages, 8)
    assert torch.allclose(found.single, expected.single, atol=1e-5)
    assert torch.equal(found.multi.offsets, expected.multi.offsets)
    assert torch.allclose(found.multi.vectors, expected.multi.vectors, atol=1e-5)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_how_many_tokens_a_page_has_is_about_what_its_header_says(family, tiny, pages):
    model = Retriever.create(load_config(None, [f"model.backbone={tiny(family)}"])).eval()
    picture = model.inputs.processor.image_token_id
    for page, made in zip(pages[1:], model.inputs.each_document(pages[1:]), strict=True):
        visual, about = int((made["input_ids"] == picture).sum()), model.inputs.about(page)
        assert about <= 2 * visual  # whole rows and columns of so small a picture
        assert about >= 0.7 * visual or family == "internvl"  # which makes a whole tile of the smallest picture
    assert model.inputs.about(Document("gone", "", images=("/nowhere.png",))) == 0
