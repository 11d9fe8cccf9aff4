"""The model card, README.md of an export: what it is made of, what it was trained on, what its sizes cost, and code.

What the checkpoint's run folder knows is taken from there: config.yaml for the data, frontier/ for the table and the
picture, where that was measured on this very checkpoint. A licence is nobody's to guess: it stands there if it is
given, or if section `mteb` of the run's configuration, which is what its maker says of a model, has one.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from colmrl.exporting.plain import Plain
from colmrl.inspecting import licence_of
from colmrl.models.description import Description, is_own

_PARTS = ("Which to take", "Points that nothing cheaper beats")
_LIBRARY = {"pylate": "PyLate", "colpali-engine": "colpali", "onnx": "onnx", "transformers": "transformers"}


def write_card(
    out: Path,
    checkpoint: Path,
    plain: Plain,
    to: str,
    blocks: Mapping[str, Sequence[str]],
    license: str | None,
) -> None:
    """`blocks`: pieces of usage code by their language."""
    run = _run_settings(checkpoint)
    published = not is_own(checkpoint)  # exported as it came: its licence is known, or not, from its own folder
    license = license or (run.get("mteb") or {}).get("license") or (licence_of(checkpoint) if published else None)
    description = plain.description
    folder = checkpoint.resolve()
    title = folder.parent.name if folder.name == "checkpoint" else folder.name
    parts = [_front(description, to, license, plain.sees_pictures), f"# {title}", _what(plain)]
    if license is None:
        parts.append("Licence: not given. Set `license:` at the top of this file, and mind that of the base model.")
    parts += ["## Use", *(f"```{kind}\n{code}```" for kind, some in blocks.items() for code in some)]
    parts += ["## Trained on", "Not trained with colmrl: see the base model." if published else _data(run)]
    parts += _frontier(out, checkpoint)
    (out / "README.md").write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def _front(description: Description, to: str, license: str | None, pictures: bool) -> str:
    base = description.model.backbone
    facts: dict[str, Any] = {"license": license} if license else {}
    facts["library_name"] = _LIBRARY.get(to, "sentence-transformers")
    if not Path(base).is_dir():  # an id of the hub, which a folder's path is not
        facts["base_model"] = base
    facts["pipeline_tag"] = "visual-document-retrieval" if pictures else "sentence-similarity"
    single, multi = description.single.dims, description.multi.dims
    nested, several = max(len(single), len(multi)) > 1, bool(multi)
    facts["tags"] = ["colmrl", *(["matryoshka"] if nested else []), *(["multi-vector"] if several else [])]
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---"


def _what(plain: Plain) -> str:
    description = plain.description
    model, single, multi = description.model, description.single, description.multi
    how = {"full": "trained whole", "lora": f"trained by LoRA, r={description.lora.r}", "frozen": "not trained"}
    lines = [f"- Base model: {_base(model.backbone)} ({plain.family}), {how[model.tuning]}"]
    if single.dims:
        lines.append(f"- One vector: {single.pooling} of the tokens, at {_numbers(single.dims)} dims")
    if multi.dims:
        budgets = f", pooled to {_numbers(multi.budgets)} vectors" if multi.budgets else ""
        lines.append(f"- A vector a token, scored by MaxSim: at {_numbers(multi.dims)} dims{budgets}")
    lines.append(f"- Queries are put as {_code(model.query_prompt)}, documents as {_code(model.document_prompt)}")
    text = f"- Texts are cut at {model.max_query_tokens} (queries) and {model.max_document_tokens} tokens (documents)"
    return "\n".join([*lines, text])


def _base(backbone: str) -> str:
    return Path(backbone).name if Path(backbone).is_dir() else f"[{backbone}](https://huggingface.co/{backbone})"


def _run_settings(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint.resolve().parent / "config.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def _data(run: Mapping[str, Any]) -> str:
    """What config.yaml says; local folders by their last names, as a card is read elsewhere."""
    data = run.get("data") or {}
    sources = data.get("sources") or ([data] if data.get("path") or data.get("triples") else [])
    if not sources:
        return "Not known: the checkpoint lay in no run folder."
    lines = []
    for source in sources:
        places = [_place(str(source[key])) for key in ("path", "triples") if source.get(key)]
        split = source.get("split") or source.get("train_split") or "train"
        lines.append(f"- {', with '.join(places)}, split {_code(split)}")
    train = run.get("train") or {}
    facts = [f"batches of {train['batch_size']}"] if "batch_size" in train else []
    facts += (
        [f"{train['max_steps']} steps"] if train.get("max_steps", -1) >= 0 else [f"{train.get('epochs', 1)} epochs"]
    )
    if train.get("init_from"):
        facts.append(f"from {_place(str(train['init_from']))} on")
    return "\n".join([*lines, f"- {', '.join(facts)}, seed {run.get('seed', 0)}"])


def _place(path: str) -> str:
    return _code("/".join(Path(path).parts[-2:]) if Path(path).is_absolute() or Path(path).exists() else path)


def _frontier(out: Path, checkpoint: Path) -> list[str]:
    """Table and picture of the sizes, where they were measured on this checkpoint."""
    here = checkpoint.resolve()
    for folder in (here.parent / "frontier", here.parent.parent / "frontier"):
        report = folder / "frontier.md"
        text = report.read_text(encoding="utf-8") if report.is_file() else ""
        if f"encoded once by {here};" not in text:
            continue
        parts = ["## What each size costs", _about(text)]
        if (folder / "frontier.png").is_file():
            shutil.copy(folder / "frontier.png", out / "frontier.png")
            parts.append("![nDCG@5 against bytes a document and milliseconds a query](frontier.png)")
        for part in _PARTS:
            found = re.search(rf"^## {part}\n\n(.*?)(?=\n\n## |\Z)", text, re.DOTALL | re.MULTILINE)
            parts += [f"### {part}", found[1].strip()] if found else []
        return parts
    return []


def _about(text: str) -> str:
    found = re.search(r"split \w+: \d+ queries, \d+ documents", text)
    return f"Measured by `colmrl frontier` on {found[0]}." if found else ""


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _code(text: str) -> str:
    return f"`{text}`" if "\n" not in text else f"`{text!r}`"
