"""Data in any format → the BEIR layout, or a column convention, in a new folder with a manifest."""

import logging
import shutil
from pathlib import Path
from typing import get_args

from colmrl.config import Config
from colmrl.configure import to_dict
from colmrl.data.convention_rows import write_convention
from colmrl.data.conventions import Convention
from colmrl.data.convert import with_fields, write_beir
from colmrl.data.fingerprint import content_hash
from colmrl.data.reading import read_collection
from colmrl.errors import InputError
from colmrl.inputs import write_inputs
from colmrl.preparing.folder import PreparedFolder

log = logging.getLogger(__name__)


def convert(
    config: Config, to: str, out: str | Path, fields: tuple[str, ...] = ("text", "image"), max_pixels: int | None = None
) -> Path:
    """`config.data.path` → `out`. A folder that is whole already is left; one that was interrupted is gone on with."""
    known = ("beir", *get_args(Convention))
    if to not in known:
        raise InputError(f"--to {to!r}: no such format: choose from {', '.join(known)}")
    if not set(fields) <= {"text", "image"} or not fields:
        raise InputError(f"--fields {','.join(fields)!r}: give text, image, or text,image")
    if max_pixels is not None and to != "beir":
        raise InputError("--max-pixels: for --to beir only; the others keep pictures as they are")
    config = write_inputs(config)
    collection = with_fields(read_collection(config.data.path, config.data, config.show), fields)
    content = [content_hash(collection.documents), content_hash(collection.queries)]
    said = {section: to_dict(config)[section] for section in ("data", "show")}
    settings = {**said, "fields": list(fields), "max_pixels": max_pixels, "content": content}
    folder, new = PreparedFolder(Path(out), to, settings), not Path(out).exists()
    if not folder.start():
        log.info("%s: is whole already", out)
        return folder.path
    try:
        if to == "beir":
            counts = write_beir(collection, folder.path, max_pixels)
        else:
            counts = write_convention(collection, to, folder.path)  # pyright: ignore[reportArgumentType]
    except InputError:  # what is asked for cannot be: the next try will be another
        if new:
            shutil.rmtree(folder.path)
        raise
    folder.finish(counts, notes=collection.notes)
    log.info("%s: %s", out, ", ".join(f"{value} {name}" for name, value in counts.items()))
    return folder.path
