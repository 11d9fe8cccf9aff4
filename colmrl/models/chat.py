"""A processor's chat template, rendered: what is wrong in its file is said, not raised."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateSyntaxError

from colmrl.errors import InputError


def templated(processor: Any, turns: Sequence[Mapping[str, Any]], **options: Any) -> str:
    """The turns as the template writes them, `options` as apply_chat_template takes them; an InputError where it is cut
    or broken.
    """
    try:
        return processor.apply_chat_template(turns, tokenize=False, **options)
    except TemplateSyntaxError as error:
        place = getattr(processor, "tokenizer", processor).name_or_path
        raise InputError(
            f"{place}: chat_template.jinja (or the tokenizer's chat_template) cannot be read: line {error.lineno}: "
            f"{error.message}: fetch or write it again"
        ) from None
