"""One folder that sentence-transformers (6.2) opens as a SentenceTransformer, the single head, and as a
MultiVectorEncoder, the multi head.

modules.json is one list for both classes. MultiVectorEncoder drops from a SentenceTransformer's list the Pooling and
Normalize modules that make sentences' embeddings, redirects a Dense that reads "sentence_embedding" to tokens, and
reports as its dimension that of the last module that has one. So that each class gets its own vectors and its own
dimension, both heads read hidden states under a name of their own and Pooling comes last:

    Transformer → hidden_states (token_embeddings, where the single head has no matrix)
    Dense       hidden_states → token_embeddings       the single head; pooling and projection commute
    Dense       hidden_states → multi_embeddings       the multi head
    Pooling     token_embeddings → sentence_embedding
    Normalize   multi_embeddings → token_embeddings    here MultiVectorEncoder's list is at its end
    Normalize   sentence_embedding

Texts are cut at our limits where `encode_query` and `encode_document` are called. Those of models that see pictures are
not cut, as pictures' tokens would be. Special tokens in a text are broken up for these, as we do.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from colmrl.exporting.chat import chat_template
from colmrl.exporting.plain import Plain, module, save_dense, write_json
from colmrl.exporting.prompts import prompts_around, prompts_before

POOLING = {"mean": "mean", "last": "lasttoken", "cls": "cls"}

_TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
_DENSE = "sentence_transformers.base.modules.dense.Dense"
_NORMALIZE = "sentence_transformers.base.modules.normalize.Normalize"
_POOLING = "sentence_transformers.sentence_transformer.modules.pooling.Pooling"
_MASK = "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"


def write_sentence_transformers(out: Path, plain: Plain) -> None:
    description = plain.description
    plain.save_model(out)
    plain.save_processor(out)
    if plain.sees_pictures:
        template = chat_template(plain.processor, description)
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")
        prompts = {role: before for role, (before, _) in prompts_around(description).items()}
    else:
        prompts = prompts_before(description, "sentence-transformers")
    hidden = "token_embeddings" if plain.single is None else "hidden_states"
    write_json(out / "sentence_bert_config.json", _transformer(plain, hidden))
    kind, similarity = ("SentenceTransformer", "cosine") if plain.has_single else ("MultiVectorEncoder", "maxsim")
    settings = {"model_type": kind, "prompts": prompts, "default_prompt_name": None, "similarity_fn_name": similarity}
    write_json(out / "config_sentence_transformers.json", settings)
    modules = [module(0, "Transformer", _TRANSFORMER)]
    for name, kind, content in _modules(plain, hidden):
        modules.append(module(len(modules), name, kind))
        folder = out / modules[-1]["path"]
        if isinstance(content, dict):
            write_json(folder / "config.json", content)
        else:
            save_dense(folder, content[0], plain.dtype, module_input_name=hidden, module_output_name=content[1])
    write_json(out / "modules.json", modules)


def _modules(plain: Plain, hidden: str) -> Iterator[tuple[str, str, dict[str, Any] | tuple[Tensor, str]]]:
    """After the Transformer: name, class, and its settings, or a Dense's matrix and the name of what it writes."""
    if plain.single is not None:
        yield "Dense", _DENSE, (plain.single, "token_embeddings")
    if plain.multi is not None:
        yield "Dense", _DENSE, (plain.multi, "multi_embeddings")
        if not plain.has_single:
            yield "MultiVectorMask", _MASK, {"skiplist_words": []}
    if plain.has_single:
        width = plain.hidden_size if plain.single is None else len(plain.single)
        pooling = {"embedding_dimension": width, "pooling_mode": POOLING[plain.description.single.pooling]}
        yield "Pooling", _POOLING, pooling | {"include_prompt": True}
    if plain.multi is not None:
        names = {"module_input_name": "multi_embeddings", "module_output_name": "token_embeddings"}
        yield "Normalize", _NORMALIZE, names
    if plain.has_single:
        yield "Normalize", _NORMALIZE, dict.fromkeys(("module_input_name", "module_output_name"), "sentence_embedding")


def _transformer(plain: Plain, hidden: str) -> dict[str, Any]:
    """sentence_bert_config.json: what goes in by which method, and what its hidden states are called."""
    states = {"method": "forward", "method_output_name": "last_hidden_state"}
    if plain.sees_pictures:
        message = states | {"format": "structured"}
        modalities = {"text": states, "image": states, "message": message}
        limits: dict[str, Any] = {"processing_kwargs": {"text": {"truncation": False}}}
    else:
        model = plain.description.model
        modalities = {"text": states}
        limits = {"query_length": model.max_query_tokens, "document_length": model.max_document_tokens}
        limits["max_seq_length"] = max(limits.values())
    return {
        "transformer_task": "feature-extraction",
        "modality_config": modalities,
        "module_output_name": hidden,
        **limits,
    }
