"""A processor's chat template, rendered: what is wrong in its file is said, not raised."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from colmrl.errors import InputError


def templated(processor: Any, turns: Sequence[Mapping[str, Any]], **options: Any) -> str:
    """The turns as the template writes them, `options` as apply_chat_template takes them; an InputError where it is cut
    or broken.
    """
    try:
        return processor.apply_chat_template(turns, tokenize=False, **options)
    except (TemplateError, ValueError) as error:  # ValueError: it is empty
        raise unusable(processor, str(error).partition("\n")[0]) from None


def unusable(processor: Any, why: str) -> InputError:
    place = getattr(processor, "tokenizer", processor).name_or_path
    return InputError(
        f"{place}: chat_template.jinja (or the tokenizer's chat_template) cannot be used: {why}: fetch or "
        "write it again"
    )
