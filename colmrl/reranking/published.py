"""Qwen3-VL-Reranker (arXiv:2601.04720) as it was published: a transformers folder or hub id, no reranker.json.

Its prompt and score are those of `rerank.score: yes_no` (scripts/qwen3_vl_reranker.py of Qwen/Qwen3-VL-Reranker-2B);
longer texts than it was trained with (8,192 tokens) are cut.
"""

from dataclasses import replace
from pathlib import Path

from colmrl.config import LoraConfig, ModelConfig, RerankConfig, ShowConfig
from colmrl.errors import InputError
from colmrl.models.attention import AttentionKernel
from colmrl.models.backbone import family_of
from colmrl.models.language import LanguageModel
from colmrl.models.processors import load_processor
from colmrl.reranking.checkpoint import RerankerDescription
from colmrl.reranking.pointwise import PointwiseModel, PointwiseReranker

_MOST_TOKENS = 8192


def open_published(
    source: str, config: RerankConfig | None = None, kernel: AttentionKernel = "sdpa", device: str = "cpu"
) -> PointwiseReranker:
    """`config`: its instruction and batch size. In fp32 on a CPU, in bf16 on a GPU."""
    try:
        family = family_of(source)
    except InputError:
        raise InputError(
            f"{source}: not a reranker: give the OUTPUT/checkpoint of train.py, or a Qwen3-VL-Reranker (folder, hub id)"
        ) from None
    if family != "qwen3_vl":
        raise InputError(
            f"{source}: a {family} without reranker.json: only Qwen3-VL-Reranker is known as it is: train one on it"
        )
    model = ModelConfig(
        backbone=source,
        tuning="frozen",
        dtype="bf16" if device == "cuda" else "fp32",
        max_query_tokens=_MOST_TOKENS,
        max_document_tokens=_MOST_TOKENS,
    )
    rerank = replace(config or RerankConfig(), score="yes_no")
    description = RerankerDescription("pointwise", model, LoraConfig(), rerank, ShowConfig())
    language = LanguageModel.load(source, model, kernel)
    language.requires_grad_(False)
    loaded = PointwiseModel(description, language, load_processor(source, None, None))
    return PointwiseReranker(loaded.to(device).eval(), Path(source).name)
