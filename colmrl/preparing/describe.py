"""Captions and summaries of items, written by a vision-language model; each is written once, however often it stops.

A part file keeps what is written, {"item", "text"} a line, and is on disk before the next batch begins.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from colmrl.errors import located
from colmrl.files import whole_lines
from colmrl.models.generator import Generator, Prompt
from colmrl.progress import track

log = logging.getLogger(__name__)

CAPTION_PROMPT = "Describe the product in this picture in one sentence: what it is, its colour, shape and material."
SUMMARY_PROMPT = (
    "Summarise this product in two or three sentences for someone who has not seen it: what it is, what it is for, "
    "and what sets it apart. Use only what you are given.\n\n{text}"
)
SMALL_PROMPT = "Name this product in one short line of at most ten words: kind, brand, main property.\n\n{text}"

Form = Literal["caption", "semantic_summary", "semantic_summary_small"]
PROMPTS: dict[Form, str] = {
    "caption": CAPTION_PROMPT,
    "semantic_summary": SUMMARY_PROMPT,
    "semantic_summary_small": SMALL_PROMPT,
}
MAX_NEW_TOKENS: dict[Form, int] = {"caption": 64, "semantic_summary": 160, "semantic_summary_small": 32}


@dataclass(frozen=True)
class Described:
    """An item as the model is shown it: its text (title first; "" where nothing is known) and the path of its picture
    ("" where there is none)."""

    item: str
    text: str
    image: str


def can_describe(form: Form, item: Described) -> bool:
    """A caption needs a picture; a summary a text or a picture."""
    return bool(item.image) or (form != "caption" and bool(item.text))


def describe(
    generator: Generator, form: Form, items: Sequence[Described], part: Path, batch_size: int = 8
) -> dict[str, str]:
    """item → text, of the items that can be described; "" where the model said nothing.

    What `part` has already is not written again.
    """
    written = read_part(part)
    waiting = [item for item in items if item.item not in written and can_describe(form, item)]
    batches = [waiting[i : i + batch_size] for i in range(0, len(waiting), batch_size)]
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("a", encoding="utf-8") as out:
        for batch in track(batches, f"{form}, batches of {batch_size}", len(batches)):
            texts = generator.write([_prompt(form, item) for item in batch], MAX_NEW_TOKENS[form])
            for item, text in zip(batch, texts, strict=True):
                out.write(json.dumps({"item": item.item, "text": text}, ensure_ascii=False) + "\n")
                written[item.item] = text
            out.flush()
            os.fsync(out.fileno())
    return {item.item: written[item.item] for item in items if item.item in written}


def read_part(part: Path) -> dict[str, str]:
    """What is written so far; a line that a kill has torn is cut off the file."""
    written = {}
    for number, line in enumerate(whole_lines(part), 1):
        try:
            row = json.loads(line)
            if not (isinstance(row["item"], str) and isinstance(row["text"], str)):
                raise TypeError
            written[row["item"]] = row["text"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise located(part, number, "line", "not one of this file's lines", "remove the file, run again") from None
    return written


def _prompt(form: Form, item: Described) -> Prompt:
    text = PROMPTS[form].replace("{text}", item.text).strip()
    return Prompt(f"item {item.item!r}", text, (item.image,) if item.image else ())


def describe_all(
    generator: Generator,
    forms: Sequence[Form],
    items: Sequence[Described],
    folder: Path,
    counts: dict[str, Any],
    problems: list[str],
) -> dict[Form, dict[str, str]]:
    """form → item → text, by way of part files in `folder`; adds to a manifest's counts and problems."""
    written: dict[Form, dict[str, str]] = {}
    for form in forms:
        texts = written[form] = describe(generator, form, items, folder / f"{form}.jsonl")
        impossible = [item.item for item in items if not can_describe(form, item)]
        empty = [item for item, text in texts.items() if not text]
        counts[form] = {"written": len(texts) - len(empty), "empty": len(empty), "nothing_to_go_by": len(impossible)}
        if empty or impossible:
            log.warning("%s: %d empty, %d items with nothing to go by", form, len(empty), len(impossible))
        problems += [f"item {item}: {form}: the model wrote nothing: try another --vlm" for item in empty]
        problems += [f"item {item}: {form}: nothing to go by: give it a picture or text" for item in impossible]
    return written
