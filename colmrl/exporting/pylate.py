"""A text model's multi head as a PyLate (1.6) ColBERT folder.

ColBERT's own habits are switched off, as our models are trained without them: marker tokens, queries filled up with
[MASK], punctuation left out. Prompts are PyLate's `prompts`: `encode(…, prompt_name="query")`.
"""

from pathlib import Path

from colmrl.exporting.plain import Plain, module, save_dense, write_json
from colmrl.exporting.prompts import prompts_before


def write_pylate(out: Path, plain: Plain) -> None:
    assert plain.multi is not None
    model = plain.description.model
    prompts = prompts_before(plain.description, "PyLate")
    plain.save_model(out)
    plain.save_processor(out)
    settings = {
        "model_type": "ColBERT",
        "prompts": prompts,
        "default_prompt_name": None,
        "similarity_fn_name": "MaxSim",
        "query_prefix": "",
        "document_prefix": "",
        "query_length": model.max_query_tokens,
        "document_length": model.max_document_tokens,
        "do_query_expansion": False,
        "attend_to_expansion_tokens": False,
        "skiplist_words": [],
    }
    write_json(out / "config_sentence_transformers.json", settings)
    longest = max(model.max_query_tokens, model.max_document_tokens)
    write_json(out / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    modules = [module(0, "Transformer", "sentence_transformers.models.Transformer")]
    modules.append(module(1, "Dense", "pylate.models.Dense.Dense"))
    save_dense(out / modules[1]["path"], plain.multi, plain.dtype, use_residual=False)
    write_json(out / "modules.json", modules)
