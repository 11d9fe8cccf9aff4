"""Folders that vLLM serves, by the loading rules of its source (main at 055e47c28003, read in November 2026); vLLM
itself was not run.

single: `vllm serve DIR --runner pooling` turns a model that writes into one that embeds (models/adapters.py). Pooling,
projection and normalisation come from modules.json, in the class names of sentence-transformers 5, which it compares
as text (transformers_utils/config.py); `matryoshka_dimensions` are the `dimensions` that a request may ask for, cut
before it normalises. Tensors have the names of transformers' class that writes, as vLLM's mappers of names expect.
multi: only classes with a projection of tokens: ColQwen3 for Qwen3-VL (colqwen3.py: `custom_text_proj`, `dim`),
HF_ColBERT for BERT (colbert.py: `linear`, `dim`). There is one for no other family of ours.
One folder holds one head.
"""

from pathlib import Path

from colmrl.exporting.asked import COLUMNS, Head
from colmrl.exporting.chat import chat_template
from colmrl.exporting.plain import Plain, module, save_dense, write_json
from colmrl.exporting.prompts import prompts_before

# family: the class that writes, and what it puts before a backbone's own names
_WRITING = {
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", "model."),
    "qwen2_5_vl": ("Qwen2_5_VLForConditionalGeneration", "model."),
    "qwen3_vl": ("Qwen3VLForConditionalGeneration", "model."),
    "internvl": ("InternVLForConditionalGeneration", "model."),
    "qwen3": ("Qwen3ForCausalLM", "model."),
    "bert": ("BertModel", ""),
}
_POOLING = {"mean": "mean_tokens", "last": "lasttoken", "cls": "cls_token"}


def write_vllm(out: Path, plain: Plain, head: Head) -> None:
    if head == "single":
        _write_single(out, plain)
    else:
        _write_multi(out, plain)
    plain.save_processor(out)
    if plain.sees_pictures:
        template = chat_template(plain.processor, plain.description)
        (out / "chat_template.jinja").write_text(template, encoding="utf-8")


def _write_single(out: Path, plain: Plain) -> None:
    single, width = plain.description.single, plain.hidden_size if plain.single is None else len(plain.single)
    architecture, prefix = _WRITING[plain.family]
    dimensions = {"is_matryoshka": True, "matryoshka_dimensions": sorted(single.dims)}
    # an output layer that is the embeddings is one that no weights are missing of
    plain.save_as(out, architecture, prefix, {}, tie_word_embeddings=True, **dimensions)
    prompts = {} if plain.sees_pictures else prompts_before(plain.description, "vLLM's callers")
    write_json(out / "config_sentence_transformers.json", {"prompts": prompts, "similarity_fn_name": "cosine"})
    modules = [module(0, "Transformer", "sentence_transformers.models.Transformer")]
    modules.append(module(1, "Pooling", "sentence_transformers.models.Pooling"))
    modes = {f"pooling_mode_{mode}": name == single.pooling for name, mode in _POOLING.items()}
    write_json(out / modules[1]["path"] / "config.json", {"word_embedding_dimension": plain.hidden_size, **modes})
    if plain.single is not None:
        modules.append(module(2, "Dense", "sentence_transformers.models.Dense"))
        save_dense(out / modules[2]["path"], plain.single, plain.dtype)
    modules.append(module(len(modules), "Normalize", "sentence_transformers.models.Normalize"))
    assert width == max(single.dims)
    write_json(out / "modules.json", modules)
    write_json(out / "sentence_bert_config.json", {"max_seq_length": _longest(plain), "do_lower_case": False})


def _write_multi(out: Path, plain: Plain) -> None:
    assert plain.multi is not None
    architecture, prefix, name = COLUMNS[plain.family]
    plain.save_as(out, architecture, prefix, {name: plain.multi}, tie_word_embeddings=True, dim=len(plain.multi))


def _longest(plain: Plain) -> int | None:
    model = plain.description.model
    return None if plain.sees_pictures else max(model.max_query_tokens, model.max_document_tokens)
