"""Writing a store: planned first, then shard by shard, then finished by one rename; and taking documents out again.

    plan.json        the manifest that will be, while shards are missing; what is finished stays readable meanwhile
    manifest.json    the finished store

What exists is whole (temporary name, fsync, rename). Resume = the shards of the plan that are missing. Several
processes may write different shards of one plan.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from colmrl.coding import code
from colmrl.data.fingerprint import combined
from colmrl.errors import InputError
from colmrl.files import digest, write_text, write_whole
from colmrl.scoring import MultiVectors
from colmrl.store.checking import UNREADABLE
from colmrl.store.manifest import FINISHED, PLANNED, Manifest, Shard, read_any_manifest, write_manifest


class StoreWriter:
    """The store in `folder` as it is planned, or finished already."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.finished = not (folder / PLANNED).is_file()
        self.manifest = read_any_manifest(folder / (FINISHED if self.finished else PLANNED))

    def missing(self) -> list[int]:
        """Shards that have to be encoded: those of which any file is absent or not whole."""
        return [number for number in range(len(self.manifest.shards)) if not self._whole(number)]

    def ids(self, number: int) -> list[str]:
        """Of the records in a shard, in their order, removed ones too."""
        return [name for name, _ in read_ids(self.folder, number, self.manifest.shards[number])]

    def hidden(self, number: int) -> set[int]:
        """Which of a shard's records are removed, counted in it: nothing reads their vectors."""
        first = sum(shard.records for shard in self.manifest.shards[:number])
        last = first + self.manifest.shards[number].records
        return {row - first for row in self.manifest.removed if first <= row < last}

    def write(self, number: int, arrays: Mapping[str, np.ndarray | MultiVectors]) -> None:
        """`arrays`: name of each ArraySpec → its normalised fp32 vectors of this shard's records."""
        for spec in self.manifest.arrays:
            array = arrays[spec.name]
            path = self.folder / f"{spec.name}-{number:05d}.npy"
            vectors = array.vectors if isinstance(array, MultiVectors) else torch.from_numpy(array)
            codes = code(vectors, spec.precision)
            if codes.scales is not None:
                _save(path.with_suffix(".scales.npy"), codes.scales.numpy())
            if isinstance(array, MultiVectors):
                _save(path.with_suffix(".offsets.npy"), array.offsets.numpy().astype(np.int64))
                if spec.placed and array.positions is not None:
                    _save(path.with_suffix(".positions.npy"), array.positions.numpy().astype(np.float32))
            _save(path, codes.values.numpy())  # last: it stands for the others

    def finish(self) -> None:
        """Hash what was written, and put the plan in the place of the manifest; InputError where a shard is missing."""
        if missing := self.missing():
            raise InputError(
                f"{self.folder}: shards {', '.join(map(str, missing))} are not there: run encode.py again "
                "(several machines need one folder that all of them see)"
            )
        shards = [
            shard if shard.files else replace(shard, files=self._hashes(number))
            for number, shard in enumerate(self.manifest.shards)
        ]
        self.manifest = replace(self.manifest, shards=tuple(shards))
        write_manifest(self.folder / FINISHED, self.manifest)
        (self.folder / PLANNED).unlink(missing_ok=True)

    def damaged(self) -> list[str]:
        """Files that are not what they were when the store was finished; every byte is read."""
        found: dict[str, str] = {}
        for number in range(len(self.manifest.shards)):
            found |= self._hashes(number)
        stated = [item for shard in self.manifest.shards for item in shard.files.items()]
        return [name for name, hashed in stated if found.get(name) != hashed]

    def _whole(self, number: int) -> bool:
        try:
            if not all((self.folder / name).is_file() for name in self.manifest.shards[number].files):
                return False
            for spec in self.manifest.arrays:
                path = self.folder / f"{spec.name}-{number:05d}.npy"
                count = len(np.load(path, mmap_mode="r"))
                if spec.head == "multi" and np.load(path.with_suffix(".offsets.npy"))[-1] != count:
                    return False
                for beside in (".scales.npy", ".positions.npy"):
                    other = path.with_suffix(beside)
                    if (other.is_file() or beside in _due(spec.precision)) and len(np.load(other, "r")) != count:
                        return False
        except UNREADABLE:
            return False
        return True

    def _hashes(self, number: int) -> dict[str, str]:
        found = {}
        for path in sorted(self.folder.glob(f"*-{number:05d}.*")):
            if path.suffix in (".npy", ".jsonl"):
                found[path.name] = digest(path)
        return found


def begin(folder: Path, wanted: Manifest, records: Mapping[str, str], append: bool = False) -> StoreWriter:
    """Plan a store of `records` (id → hash, in order), or go on with the one that is there.

    `wanted` says all but shards and removed rows. With `append` a finished store gets the records that it does not
    have, and those of a known id that changed in the place of the old ones; else another store there is an InputError.
    """
    for partial in folder.glob("*.partial"):  # of a run that was killed
        partial.unlink()
    base = read_any_manifest(folder / FINISHED) if (folder / FINISHED).is_file() else None
    interrupted = (folder / PLANNED).is_file()
    if interrupted and base is None and not any(folder.glob("*.npy")):  # nothing was encoded: it binds nobody
        for path in (folder / PLANNED, *folder.glob("ids-*.jsonl")):
            path.unlink()
        interrupted = False
    if base is not None and append:
        _check_same(folder, base, wanted, ("shards", "removed", "content_hash"))
        planned, rows = _appended(folder, _drop_lost(folder, base), wanted, records)
    else:
        rows = list(records.items())
        planned = replace(wanted, shards=_shards(rows, wanted.shard_size), content_hash=combined(records.values()))
        if base is not None:
            if interrupted and read_any_manifest(folder / PLANNED).unlike(base):
                raise InputError(f"{folder}: records were being added when it was interrupted: go on with --append")
            _check_same(folder, base, planned, ("shards", "removed", "content_hash") if base.removed else ("shards",))
            _write_lost_ids(folder, base, rows)
            if base.removed:
                _check_kept(folder, base, records)
            planned, rows = _drop_lost(folder, base), []
    if interrupted:
        _check_same(folder / PLANNED, read_any_manifest(folder / PLANNED), planned)
    elif rows or (base is not None and planned.shards != base.shards):
        first = len(base.shards) if base else 0
        for number, some in enumerate(_chunks(rows, wanted.shard_size), start=first):
            write_text(folder / f"ids-{number:05d}.jsonl", _id_lines(some))
        write_manifest(folder / PLANNED, planned)
    return StoreWriter(folder)


def _check_kept(folder: Path, base: Manifest, records: Mapping[str, str]) -> None:
    """An InputError unless the store is of these records, but for those that were removed from it."""
    live = live_rows(folder, base)
    out = _taken_out(folder, base, live)
    if {pair for pair in records.items() if pair not in out} != {(name, said) for name, (_, said) in live.items()}:
        raise InputError(f"{folder}: the data's records changed: add what changed to it with --append")


def _write_lost_ids(folder: Path, base: Manifest, rows: Sequence[tuple[str, str]]) -> None:
    """Again, where a file of ids is not whole and the data's own order tells what stood in it."""
    for number, (shard, some) in enumerate(zip(base.shards, _chunks(rows, base.shard_size), strict=False)):
        path = folder / f"ids-{number:05d}.jsonl"
        try:
            read_ids(folder, number, shard)
        except InputError:
            if shard.content != combined(stated for _, stated in some):
                raise
            write_text(path, _id_lines(some))


def _drop_lost(folder: Path, base: Manifest) -> Manifest:
    """Without shards of which a file is gone or cut: all of such a shard is made anew, and hashed then."""
    lost = {number for number in StoreWriter(folder).missing() if number < len(base.shards)}
    for name in (name for number in lost for name in base.shards[number].files if name.endswith(".npy")):
        (folder / name).unlink(missing_ok=True)
    shards = (replace(shard, files={}) if number in lost else shard for number, shard in enumerate(base.shards))
    return replace(base, shards=tuple(shards))


def _id_lines(rows: Sequence[tuple[str, str]]) -> str:
    return "".join(json.dumps({"id": name, "hash": stated}) + "\n" for name, stated in rows)


def remove(folder: Path, ids: Sequence[str]) -> int:
    """Take records out of a finished store, whose files stay as they are; returns how many. An InputError where one is
    not there.
    """
    manifest = StoreWriter(folder).manifest
    if (folder / PLANNED).is_file():
        raise InputError(f"{folder}: not finished: run encode.py again first")
    live = live_rows(folder, manifest)
    unknown = [name for name in ids if name not in live]
    if unknown:
        also = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise InputError(f"{folder}: no record {unknown[0]!r}{also}: give ids that are there; none was removed")
    if len(set(ids)) == len(live):
        raise InputError(f"{folder}: nothing would be left: remove the folder instead")
    gone = {live.pop(name)[0] for name in dict.fromkeys(ids)}
    removed = tuple(sorted(gone.union(manifest.removed)))
    content = combined(stated for _, stated in live.values())
    write_manifest(folder / FINISHED, replace(manifest, removed=removed, content_hash=content))
    return len(gone)


def live_rows(folder: Path, manifest: Manifest) -> dict[str, tuple[int, str]]:
    """Id → its row over all shards and its hash, of all that are not removed."""
    removed, row, found = set(manifest.removed), 0, {}
    for number, shard in enumerate(manifest.shards):
        for name, stated in read_ids(folder, number, shard):
            if row not in removed:
                found[name] = row, stated
            row += 1
    return found


def read_ids(folder: Path, number: int, shard: Shard) -> list[tuple[str, str]]:
    """Id and hash of each record of a shard; an InputError where they are not those that it was planned with."""
    path = folder / f"ids-{number:05d}.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        read = [(str(row["id"]), str(row["hash"])) for row in rows]
        if combined(stated for _, stated in read) != shard.content:
            raise ValueError(f"{len(read)} records, not the {shard.records} that the shard has")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not whole ({error}): run encode.py again, it is written anew") from None
    return read


def _appended(
    folder: Path, base: Manifest, wanted: Manifest, records: Mapping[str, str]
) -> tuple[Manifest, list[tuple[str, str]]]:
    live = live_rows(folder, base)
    out = _taken_out(folder, base, live)
    new = [
        (name, stated)
        for name, stated in records.items()
        if (live[name][1] != stated if name in live else (name, stated) not in out)
    ]
    changed = {live[name][0] for name, _ in new if name in live}
    kept = {name: stated for name, (_, stated) in live.items()} | dict(new)
    planned = replace(
        wanted,
        data=wanted.data if kept.keys() == records.keys() else base.data,
        shards=base.shards + _shards(new, base.shard_size),
        removed=tuple(sorted(changed.union(base.removed))),
        content_hash=combined(kept.values()),
    )
    return planned, new


def _taken_out(folder: Path, base: Manifest, live: Mapping[str, tuple[int, str]]) -> set[tuple[str, str]]:
    """Id and hash of what was removed and nothing came in the place of: it stays out until it changes."""
    every = [pair for number, shard in enumerate(base.shards) for pair in read_ids(folder, number, shard)]
    return {every[row] for row in base.removed if every[row][0] not in live}


def _check_same(place: Path, there: Manifest, wanted: Manifest, ignored: Sequence[str] = ()) -> None:
    different = there.unlike(wanted, ignored)
    if different:
        hints = {"content_hash": "add what is new to it with --append", "fingerprint": "put its checkpoint back"}
        also = f", or {hints[different[0]]}" if different[0] in hints and not different[1:] else ""
        said = ", ".join(_said(name, there, wanted) for name in different)
        raise InputError(f"{place}: of another {said}: use another folder, or remove it{also}")


def _said(name: str, there: Manifest, wanted: Manifest) -> str:
    """What differs, in the words of settings, with both values where they are short."""
    match name:
        case "content_hash":
            return "content_hash (the data's records changed)"
        case "arrays":
            kept, asked = (" and ".join(spec.name for spec in each.arrays) for each in (there, wanted))
            return f"arrays (--views: {kept}, not {asked})"
        case "shards":
            return "shards (encode.shard_size, or the data)"
        case _:
            return f"{name} ({getattr(there, name)}, not {getattr(wanted, name)})"


def _shards(rows: Sequence[tuple[str, str]], size: int) -> tuple[Shard, ...]:
    return tuple(Shard(len(some), combined(stated for _, stated in some)) for some in _chunks(rows, size))


def _chunks(rows: Sequence[tuple[str, str]], size: int) -> list[Sequence[tuple[str, str]]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _due(precision: str) -> tuple[str, ...]:
    return (".scales.npy",) if precision == "int8" else ()


def _save(path: Path, array: np.ndarray) -> None:
    write_whole(path, functools.partial(_write_array, np.ascontiguousarray(array)))


def _write_array(array: np.ndarray, path: Path) -> None:
    """As np.save, which does not tell why a disk refuses."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)
