"""The folder that work done ahead writes into: begun with its settings, gone on with, finished with a manifest.

manifest.json = {"kind", "settings", "finished", "command", "commit", "counts", "problems", "notes"}; while
`finished` is false the rest of the folder is not to be used.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colmrl import provenance
from colmrl.errors import InputError
from colmrl.files import check_new_folder, read_json, write_text


@dataclass(frozen=True)
class PreparedFolder:
    """`kind`: which work (e.g. "pdf"); `settings`: all that the result depends on, JSON values only."""

    path: Path
    kind: str
    settings: Mapping[str, Any]

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    def start(self) -> bool:
        """Begin the folder, or go on with it; False where it is finished already.

        Raises InputError for a folder of other work or other settings, and for one that holds something else.
        """
        if not self.manifest.is_file():
            check_new_folder(self.path)
            self._write(finished=False)
            return True
        keys = ("kind", "settings", "finished")
        before = read_json(self.manifest, "choose another --out, or remove the folder", keys)
        wanted = json.loads(json.dumps(self.settings))
        if not isinstance(before["settings"], dict):
            raise InputError(f"{self.manifest}: settings: not an object: choose another --out, or remove the folder")
        if before["kind"] != self.kind:
            raise InputError(f"{self.path}: holds prepared {before['kind']} data: choose another --out, or remove it")
        changed = sorted(k for k in {*before["settings"], *wanted} if before["settings"].get(k) != wanted.get(k))
        if changed:
            said = ", ".join(f"{key} ({before['settings'].get(key)!r}, now {wanted.get(key)!r})" for key in changed)
            raise InputError(f"{self.path}: was begun with other {said}: choose another --out, or remove it")
        return not before["finished"]

    def finish(self, counts: Mapping[str, Any], problems: Sequence[str] = (), notes: Sequence[str] = ()) -> None:
        """Say that the folder is whole. `problems`: one line for each thing that was left out, with its remedy;
        `notes`: what a person should know of what was read.
        """
        self._write(finished=True, counts=dict(counts), problems=list(problems), notes=list(notes))

    def _write(self, **more: Any) -> None:
        content = {"kind": self.kind, "settings": dict(self.settings), **more}
        content |= {"command": provenance.command(), "commit": provenance.commit()}
        write_text(self.manifest, json.dumps(content, indent=2, ensure_ascii=False))
