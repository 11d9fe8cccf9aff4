"""Our prompt around a record as a chat template, for libraries that show pictures through messages.

A user's message has pictures and a text; a system's message, if there is one, is what goes before the text. Rendered,
it is what `models.inputs` makes of a record: the processor's own template around pictures, prompt and text, special
tokens in the text broken up. `task`, which sentence-transformers gives, chooses what follows the text.
"""

import json
from typing import Any

from colmrl.errors import InputError
from colmrl.exporting.prompts import prompts_around
from colmrl.models.chat import templated
from colmrl.models.retriever import Description

_HERE = "HERE-IT-STANDS"  # in no template


def chat_template(processor: Any, description: Description) -> str:
    head, picture, tail = _parts(processor)
    after = {role: after for role, (_, after) in prompts_around(description).items()}
    special = sorted(processor.tokenizer.all_special_tokens, key=len, reverse=True)
    values = {"head": head, "picture": picture, "tail": tail, "special": special}
    lines = [f"{{%- set {name} = {json.dumps(value, ensure_ascii=False)} -%}}" for name, value in values.items()]
    lines += [
        "{%- macro said(content) -%}",
        "{%- if content is string -%}{{ content }}{%- else -%}",
        "{{ content | selectattr('type', 'eq', 'text') | map(attribute='text') | join }}{%- endif -%}",
        "{%- endmacro -%}",
        "{%- set seen = namespace(prompt='', pictures='', text='') -%}",
        "{%- for message in messages -%}",
        "{%- if message.role == 'system' -%}{%- set seen.prompt = said(message.content) -%}",
        "{%- else -%}{%- set seen.text = said(message.content) -%}",
        "{%- if message.content is not string -%}",
        "{%- set number = message.content | selectattr('type', 'eq', 'image') | list | length -%}",
        "{%- set seen.pictures = picture * number -%}{%- endif -%}{%- endif -%}",
        "{%- endfor -%}",
        "{%- for token in special -%}",
        "{%- set seen.text = seen.text | replace(token, token[0] + ' ' + token[1:]) -%}",
        "{%- endfor -%}",
        "{{- head + seen.pictures + seen.prompt + seen.text -}}",
    ]
    if after["query"] == after["document"]:
        lines.append(f"{{{{- {json.dumps(after['query'], ensure_ascii=False)} -}}}}" if after["query"] else "")
    else:
        lines.append(f"{{%- set after = {json.dumps(after, ensure_ascii=False)} -%}}{{{{- after.get(task, '') -}}}}")
    return "\n".join(line for line in [*lines, "{{- tail -}}"] if line)


def _parts(processor: Any) -> tuple[str, str, str]:
    """What the processor's template puts before all, for a picture, and after all."""

    def shown(pictures: int, text: str) -> str:
        content = [{"type": "image"} for _ in range(pictures)] + ([{"type": "text", "text": text}] if text else [])
        return templated(processor, [{"role": "user", "content": content}])

    head, _, tail = shown(0, _HERE).partition(_HERE)
    picture = shown(1, _HERE).removeprefix(head).removesuffix(_HERE + tail)
    if shown(2, _HERE) != head + 2 * picture + _HERE + tail or shown(1, "") != head + picture + tail:
        raise InputError("processor/chat_template.jinja: what it says of a picture depends on the others: not exported")
    return head, picture, tail
