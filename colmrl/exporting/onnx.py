"""A text model's single head as one ONNX graph: tokens → the normalised vector, pooling and projection in it.

Input: input_ids and attention_mask, batch × tokens, both free. Output: sentence_embedding, at the largest trained dim;
cut it shorter and normalise again for the others. Written by torch.onnx.export; the tokenizer lies beside it.
"""

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from colmrl.exporting.plain import Plain
from colmrl.models.heads import pool

_INPUTS = ("input_ids", "attention_mask")


class Embedder(nn.Module):
    """What the graph computes."""

    def __init__(self, plain: Plain):
        super().__init__()
        self.model: Any = plain.model.float()
        self.pooling = plain.description.single.pooling
        self.matrix: Tensor | None
        self.register_buffer("matrix", plain.single)

    def forward(self, input_ids: Int[Tensor, "b n"], attention_mask: Int[Tensor, "b n"]) -> Float[Tensor, "b dim"]:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        pooled = pool(hidden, attention_mask.bool(), self.pooling)
        return F.normalize(pooled if self.matrix is None else pooled @ self.matrix.T, dim=-1)


def write_onnx(out: Path, plain: Plain) -> None:
    example = plain.tokenizer(["one text", "and another one"], padding=True, return_tensors="pt")
    sizes = {name: {0: "batch", 1: "tokens"} for name in _INPUTS}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # it tells of each step
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Embedder(plain).eval(),
            tuple(example[name] for name in _INPUTS),
            str(out / "model.onnx"),
            input_names=list(_INPUTS),
            output_names=["sentence_embedding"],  # "embedding" is what the exporter calls a node of its own
            dynamic_shapes=sizes,
            dynamo=True,
        )
    plain.tokenizer.save_pretrained(out)
    plain.model.config.save_pretrained(out)
