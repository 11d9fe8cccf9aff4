"""What a command is given is looked at before torch and transformers are imported: they take seconds, this takes none.

Each is a check that the work itself begins with, so nothing is refused here that would not be there.
"""

import re
from pathlib import Path

from colmrl.errors import InputError
from colmrl.models.sources import read_description
from colmrl.store import read_manifest
from colmrl.view import TrainedViews, View


def check_checkpoint(folder: str | Path, views: str | None = None) -> None:
    """A retriever's, or another library's model that is read as one; `views`: between commas, at trained dims."""
    _check_views(read_description(folder).trained, views)


def check_store(folder: str | Path, views: str | None = None) -> None:
    """A finished one; `views`: between commas, or a funnel, at dims that were trained."""
    if not str(folder):
        raise InputError("--store: no name: give the folder that encode.py wrote")
    _check_views(read_manifest(Path(folder) / "documents").trained, views)


def _check_views(trained: TrainedViews, views: str | None) -> None:
    if views is None:
        return
    names = [name for name in re.split(r"[,+]", views) if name.strip()]
    if not names:
        raise InputError(f"view {views!r}: none is named: give e.g. single@64 or multi@64x16")
    for name in names:
        trained.check(View.parse(name.partition("/")[0]))
