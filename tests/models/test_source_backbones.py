"""Text models of families that we do not name, with heads of sentence-transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoConfig, AutoModel, AutoTokenizer

from colmrl.data.records import Document
from colmrl.models.retriever import Retriever

TEXTS = ["a red circle, and a blue star!", "left of it", "star"]
_SIZES = {"vocab_size": 400, "num_attention_heads": 2, "hidden_size": 32, "num_hidden_layers": 2}
_SIZES |= {"intermediate_size": 48, "max_position_embeddings": 130, "pad_token_id": 0}
_TOKENS = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)


@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        ("mpnet", _SIZES),
        ("xlm-roberta", _SIZES),
        ("modernbert", _SIZES | _TOKENS | {"global_attn_every_n_layers": 2}),
        ("gemma3_text", _SIZES | {"head_dim": 16, "num_key_value_heads": 1, "use_bidirectional_attention": True}),
        ("t5", {"d_model": 32, "num_layers": 2, "num_heads": 2, "d_ff": 48, "vocab_size": 400, "d_kv": 16}),
    ],
)
def test_any_text_model_gives_the_vectors_of_its_library(tiny, tmp_path: Path, family: str, sizes: dict[str, Any]):
    base, folder = tmp_path / "base", tmp_path / "model"
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(family, **sizes)).save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(tiny("bert"))
    tokenizer.model_input_names, tokenizer.model_max_length = ["input_ids", "attention_mask"], 100
    tokenizer.save_pretrained(base)
    made = SentenceTransformer(modules=[Transformer(str(base)), Pooling(32), Normalize()], device="cpu")
    made.save(str(folder), create_model_card=False)
    model = Retriever.load(folder).eval()
    with torch.inference_mode():
        single = model(model.inputs.documents([Document(str(i), text) for i, text in enumerate(TEXTS)])).single
    assert single is not None
    torch.testing.assert_close(single, torch.from_numpy(made.encode_document(TEXTS)), atol=2e-6, rtol=0)
