"""What a command is given is looked at before torch and transformers are imported: they take seconds, this takes none.

Each is a check that the work itself begins with, so nothing is refused here that would not be there.
"""

import re
from pathlib import Path

from colmrl.config import DataConfig
from colmrl.data.reading import check_place
from colmrl.models.sources import read_description
from colmrl.store import read_manifest
from colmrl.view import View


def check_checkpoint(folder: str | Path) -> None:
    """A retriever's, or another library's model that is read as one."""
    read_description(folder)


def check_data(path: str, data: DataConfig) -> None:
    if data.format != "video-pairs" and not path.startswith("sample:"):  # both are written where there are none
        check_place(path)


def check_store(folder: str | Path, views: str | None = None) -> None:
    """A finished one; `views`: between commas, or a funnel, at dims that were trained."""
    trained = read_manifest(Path(folder) / "documents").trained
    for name in re.split(r"[,+]", views or ""):
        if name.strip():
            trained.check(View.parse(name.partition("/")[0]))
