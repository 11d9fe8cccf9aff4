"""A yes/no reranker as a folder that sentence-transformers opens as a CrossEncoder, with no code of ours.

Its modules do what ours does: the language model, then LogitScore, the logit of "yes" less that of "no"; a sigmoid is
its activation. The prompt becomes the chat template, which gets the pair as two roles, query and document; a system
message, if there is one, is the instruction (`CrossEncoder.predict(…, prompt=…)`). Lengths are not cut there, and
special tokens in a record's text are not broken up.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from colmrl.errors import InputError
from colmrl.files import new_folder
from colmrl.models.backbone import no_bars
from colmrl.reranking.description import read_description
from colmrl.reranking.pointwise import PointwiseModel

_TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"
_LOGIT_SCORE = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"

_VIDEO = "video_preprocessor_config.json"


def export_cross_encoder(checkpoint: str | Path, out: str | Path) -> Path:
    """Write the new folder `out`; LoRA is merged into the base weights, which are taken unquantised."""
    description = read_description(Path(checkpoint))
    if description.task != "pointwise" or description.rerank.score != "yes_no":
        form = description.rerank.score if description.task == "pointwise" else description.task
        raise InputError(f"{checkpoint}: a {form} reranker: only rerank.score=yes_no is what a CrossEncoder can be")
    whole = replace(description, model=replace(description.model, quantization=None))
    return _write(out, PointwiseModel.load(checkpoint, whole))


@new_folder
def _write(out: Path, model: PointwiseModel) -> None:
    adapted: Any = model.language.model
    merged = adapted.merge_and_unload() if hasattr(adapted, "merge_and_unload") else adapted
    with no_bars():
        merged.save_pretrained(out)
    model.processor.save_pretrained(out)
    (out / "chat_template.jinja").write_text(chat_template(model), encoding="utf-8")
    source = model.description.model.backbone
    if video := cached_file(source, _VIDEO, _raise_exceptions_for_missing_entries=False):  # ours has no such part
        shutil.copy(video, out / _VIDEO)
    yes, no = model.answers
    _json(out / "modules.json", [_module(0, "", _TRANSFORMER), _module(1, "1_LogitScore", _LOGIT_SCORE)])
    (out / "1_LogitScore").mkdir()
    score = {"true_token_id": yes, "false_token_id": no, "module_input_name": "causal_logits"}
    _json(out / "1_LogitScore" / "config.json", score)
    sees = model.prompt.prompts.sees_pictures
    logits = {"method": "forward", "method_output_name": "logits"}
    message = logits | {"format": "structured" if sees else "flat"}
    transformer = {
        "transformer_task": "any-to-any" if sees else "text-generation",
        "modality_config": {"text": logits, **({"image": logits} if sees else {}), "message": message},
        "module_output_name": "causal_logits",
        "processing_kwargs": {"text": {"truncation": False}},
    }
    _json(out / "sentence_bert_config.json", transformer)
    _json(out / "config_sentence_transformers.json", {"model_type": "CrossEncoder"})


def chat_template(model: PointwiseModel) -> str:
    """Our prompt in Jinja. A record shows its pictures, then its text; "NULL" where it has neither."""
    prompt = model.prompt
    texts = {
        "head": prompt.prompts.head + "<Instruct>: ",
        "instruction": model.description.rerank.instruction,
        "picture": prompt.prompts.picture,
        "tail": prompt.prompts.tail,
    }
    lines = [f"{{%- set {name} = {json.dumps(text, ensure_ascii=False)} -%}}" for name, text in texts.items()]
    lines += [
        "{%- macro said(content) -%}",
        "{%- if content is string -%}{{ content or 'NULL' }}{%- else -%}",
        "{%- set pictures = content | selectattr('type', 'eq', 'image') | list | length -%}",
        "{%- set texts = content | selectattr('type', 'eq', 'text') | map(attribute='text') | join -%}",
        "{{ (picture * pictures + texts) or 'NULL' }}{%- endif -%}",
        "{%- endmacro -%}",
        "{%- set asked = namespace(system=instruction) -%}",
        "{%- for message in messages if message.role == 'system' -%}"
        "{%- set asked.system = said(message.content) -%}{%- endfor -%}",
        "{{- head + asked.system -}}",
        "{%- for message in messages if message.role == 'query' -%}"
        "{{ '<Query>:' + said(message.content) + '\\n' }}{%- endfor -%}",
        "{%- for message in messages if message.role == 'document' -%}"
        "{{ '<Document>:' + said(message.content) }}{%- endfor -%}",
        "{{- tail -}}",
    ]
    return "\n".join(lines)


def _module(place: int, path: str, kind: str) -> dict[str, Any]:
    return {"idx": place, "name": str(place), "path": path, "type": kind}


def _json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
