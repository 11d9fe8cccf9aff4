"""Tensors on disk by content: what a frozen model gave, found again by a hash of everything that it depends on.

    FOLDER/FINGERPRINT/about.json         what the fingerprint is of
    FOLDER/FINGERPRINT/NAME.tensors       entries one after another, each in the format of safetensors
    FOLDER/FINGERPRINT/NAME.json          key, first byte, bytes and CRC-32 of each; comes last: the shard is whole

Shards are only ever added, each under a name of its own and by rename: a kill costs the one that was not full yet, and
several processes may add at the same time. Entries are read by plain file reads, in any process.
"""

import json
import logging
import secrets
import zlib
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load, save
from torch import Tensor

from colmrl.errors import InputError
from colmrl.files import write_text, write_whole

log = logging.getLogger(__name__)

Entry = dict[str, Tensor]

_SHARD_BYTES = 1 << 28  # what a kill can cost, and what is held in memory


class FeatureCache:
    """Entries of one fingerprint. `about`: what that is of, in words."""

    def __init__(self, folder: str | Path, fingerprint: str, about: Mapping[str, object]):
        self.folder, self.about = Path(folder) / fingerprint, about
        self._places: dict[str, tuple[str, int, int, int]] = {}  # key → shard, first byte, bytes, CRC
        self._new: dict[str, bytes] = {}
        self._new_bytes = 0
        self.refresh()

    def __contains__(self, key: str) -> bool:
        return key in self._places or key in self._new

    def refresh(self) -> None:
        """Find what is there by now. A shard that is not whole is removed, and said: its entries are missing again."""
        self._places.clear()
        for index in sorted(self.folder.glob("*.json")):
            if index.name == "about.json":
                continue
            shard = index.with_suffix(".tensors")
            try:
                places = [(key, start, size, crc) for key, start, size, crc in json.loads(index.read_bytes())]
                whole = shard.stat().st_size == sum(size for _, _, size, _ in places)
            except (OSError, ValueError, TypeError):
                whole, places = False, []
            if not whole:
                log.warning("%s: damaged: removed, what it held is computed again", shard)
                index.unlink(missing_ok=True)
                shard.unlink(missing_ok=True)
            self._places |= {key: (index.stem, start, size, crc) for key, start, size, crc in places if whole}

    def add(self, key: str, entry: Mapping[str, Tensor]) -> int:
        """Keep the entry, in the dtypes that it has; returns its bytes. It is on disk when a shard is full."""
        self._new[key] = save({name: tensor.detach().cpu().contiguous() for name, tensor in entry.items()})
        self._new_bytes += len(self._new[key])
        size = len(self._new[key])
        if self._new_bytes >= _SHARD_BYTES:
            self.flush()
        return size

    def flush(self) -> None:
        """Write a shard of what is not on disk yet."""
        if not self._new:
            return
        name, start, places = secrets.token_hex(8), 0, []
        for key, content in self._new.items():
            places.append((key, start, len(content), zlib.crc32(content)))
            start += len(content)
        if not (self.folder / "about.json").exists():
            write_text(self.folder / "about.json", json.dumps(self.about, indent=2))
        shard = self.folder / f"{name}.tensors"
        write_whole(shard, self._write)
        write_text(shard.with_suffix(".json"), json.dumps(places))
        self._places |= {key: (name, *place) for key, *place in places}
        self._new.clear()
        self._new_bytes = 0

    def _write(self, path: Path) -> None:
        with path.open("wb") as file:
            file.writelines(self._new.values())

    def read(self, key: str) -> Entry | None:
        """None where there is no such entry; an InputError where it is damaged."""
        if key not in self._places:
            return None
        name, start, size, crc = self._places[key]
        path = self.folder / f"{name}.tensors"
        try:
            with path.open("rb") as file:
                file.seek(start)
                content = file.read(size)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}): run again, it is computed anew") from None
        if zlib.crc32(content) != crc:
            raise InputError(f"{path}: damaged: remove it and run again, it is computed anew")
        return load(content)
