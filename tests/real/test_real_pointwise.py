"""Pointwise rerankers on real weights, processors and data from ../shared; skipped, saying so, where that is absent."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, BertModel, BertTokenizer

from colmrl.configure import load_config
from colmrl.data.beir import read_corpus, read_queries
from colmrl.data.records import Document, Query
from colmrl.models.processors import load_processor
from colmrl.reranking.pointwise import SYSTEM, PointwiseModel, PointwiseReranker
from colmrl.reranking.reranker import open_reranker

SHARED = Path(__file__).parents[3] / "shared"
QWEN, MINILM, SCIFACT = (
    SHARED / "processors/qwen3-vl-embedding-8b",
    SHARED / "models/all-MiniLM-L6-v2",
    SHARED / "data/scifact",
)
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A Qwen3-VL-Reranker as it is laid out, its processor the real one, its weights few and random."""
    folder = tmp_path_factory.mktemp("published") / "Qwen3-VL-Reranker"
    config = AutoConfig.from_pretrained(QWEN)
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 64, 96, 2
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 2, 1, 32
    text.rope_parameters["mrope_section"] = [4, 6, 6]
    text.layer_types = ["full_attention"] * 2
    vision.depth, vision.hidden_size, vision.intermediate_size, vision.num_heads = 2, 32, 48, 2
    vision.out_hidden_size, vision.deepstack_visual_indexes = 64, [0]
    config.tie_word_embeddings = text.tie_word_embeddings = True
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    for path in QWEN.iterdir():
        if path.name not in ("config.json", "model.safetensors.index.json"):
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


@torch.no_grad()
def test_a_qwen3_vl_reranker_scores_as_its_own_script_does(published, tmp_path):
    """scripts/qwen3_vl_reranker.py: messages, chat template, then sigmoid(last hidden state · (yes - no))."""
    picture = tmp_path / "page.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 140, 3), dtype=np.uint8)).save(picture)
    documents = [
        Document("a", "Mars is often called the Red Planet!"),
        Document("b", "", images=(str(picture),)),
        Document("c", "Venus.", images=(str(picture),)),
    ]
    query, instruction = (
        "Which planet is the red one?",
        "Given a search query, retrieve relevant candidates that answer the query.",
    )
    processor = load_processor(str(published), None, None)
    model = AutoModelForImageTextToText.from_pretrained(published, dtype=torch.float32).eval()
    vocabulary = processor.tokenizer.get_vocab()
    head = model.lm_head.weight[vocabulary["yes"]] - model.lm_head.weight[vocabulary["no"]]
    expected = []
    for document in documents:
        content = [{"type": "text", "text": "<Instruct>: " + instruction}, {"type": "text", "text": "<Query>:"}]
        content += [{"type": "text", "text": query}, {"type": "text", "text": "\n<Document>:"}]
        content += [{"type": "image"}] * len(document.images)
        content += [{"type": "text", "text": document.text}] if document.text else []
        messages = [
            {"role": "system", "content": [{"type": "text", "text": SYSTEM}]},
            {"role": "user", "content": content},
        ]
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        images = [Image.open(path).convert("RGB") for path in document.images] or None
        inputs = processor(text=[text], images=images, return_tensors="pt")
        expected.append(torch.sigmoid(model.model(**inputs).last_hidden_state[0, -1] @ head).item())
    reranker = open_reranker(published)
    found = reranker.score(Query("q", query), documents)
    assert np.allclose(found, expected, atol=1e-4) and np.ptp(expected) > 0.01
    assert np.allclose([reranker.score(Query("q", query), [d])[0] for d in documents], expected, atol=1e-4)


@torch.no_grad()
def test_minilm_reads_pairs_as_its_tokenizer_and_model_do(tmp_path):
    settings = [
        "task=pointwise",
        f"model.backbone={MINILM}",
        "model.max_query_tokens=64",
        "model.max_document_tokens=400",
    ]
    reranker = PointwiseReranker(PointwiseModel.create(load_config(None, settings)).eval())
    tokenizer, model = BertTokenizer.from_pretrained(MINILM), BertModel.from_pretrained(MINILM).eval()
    short = [d for d in read_corpus(SCIFACT)[:40] if len(tokenizer(d.body)["input_ids"]) < 380]
    documents, queries = short[:6], read_queries(SCIFACT)[:2]
    for query in queries:
        pairs = tokenizer([query.text] * 6, [d.body for d in documents], padding=True, return_tensors="pt")
        head = reranker.model.classifier(model(**pairs).last_hidden_state[:, 0])
        assert np.allclose(reranker.score(query, documents), torch.sigmoid(head)[:, 0].numpy(), atol=1e-5)
