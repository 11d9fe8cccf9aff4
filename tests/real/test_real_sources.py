"""Real weights and real processors of other libraries' models."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from colmrl.data.records import Document
from colmrl.models.inputs import InputBuilder
from colmrl.models.processors import processor_class
from colmrl.models.retriever import Retriever, read_description, read_processor

SHARED = Path(__file__).parents[3] / "shared"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"needs {SHARED}")


def test_minilm_gives_the_vectors_of_sentence_transformers():
    from sentence_transformers import SentenceTransformer

    folder = SHARED / "models" / "all-MiniLM-L6-v2"
    texts = [line.split('"text": "')[1][:600] for line in (SHARED / "data/scifact/corpus.jsonl").open().readlines()[:8]]
    model = Retriever.load(folder).eval()
    with torch.inference_mode():
        single = model(model.inputs.documents([Document(str(i), text) for i, text in enumerate(texts)])).single
    assert single is not None and read_description(folder).single.dims == (384,)
    expected = SentenceTransformer(str(folder), device="cpu").encode([text.strip() for text in texts])
    torch.testing.assert_close(single, torch.from_numpy(expected), atol=2e-6, rtol=0)


def test_qwen3_vl_embedding_is_asked_as_its_script_asks(tmp_path):
    folder = SHARED / "processors" / "qwen3-vl-embedding-8b"
    description, picture = read_description(folder), tmp_path / "page.png"
    assert description.single.dims == (4096, 2048, 1024, 512, 256, 128, 64) and description.model.dtype == "bf16"
    Image.new("RGB", (1024, 1448), "white").save(picture)
    inputs = InputBuilder(read_processor(folder), description.model)
    made = inputs.documents([Document("1", "A page.", images=(str(picture),))])

    processor = processor_class("qwen3_vl").from_pretrained(folder, backend="pil")
    turns = [
        {"role": "system", "content": [{"type": "text", "text": "Represent the user's input."}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "A page."}]},
    ]
    text = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    size = (1024, 1440)  # as qwen_vl_utils.smart_resize rounds to 32 × 32 within 1,800 tokens
    theirs = processor(text=[text], images=[Image.open(picture).resize(size)], do_resize=False, return_tensors="pt")
    torch.testing.assert_close(made["input_ids"], theirs["input_ids"])
    torch.testing.assert_close(made["image_grid_thw"], theirs["image_grid_thw"])
    assert text.endswith("<|im_start|>assistant\n")
