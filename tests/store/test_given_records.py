"""What is planned, added and taken out of a store of given vectors; what a damaged file is answered with."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from given import RECORDS, SPECS, WANTED, vectors_of, write

from colmrl.data.fingerprint import combined
from colmrl.errors import InputError
from colmrl.store import EmbeddingStore, Manifest, StoreWriter, begin, read_manifest, remove
from colmrl.view import View


@pytest.fixture
def folder(tmp_path):
    write(begin(tmp_path / "made", WANTED, RECORDS))
    return tmp_path / "made"


def test_of_a_damaged_file_its_shard_is_said_and_missing_and_no_other(folder):
    for path in sorted(folder.glob("*.npy")):
        number, content = int(path.name.split(".")[0][-5:]), path.read_bytes()
        for broken in (content[: len(content) // 2], b"", None):
            path.unlink() if broken is None else path.write_bytes(broken)
            assert StoreWriter(folder).missing() == [number], path
            with pytest.raises(InputError, match=f"shard {number}"):
                EmbeddingStore(folder)
            assert StoreWriter(folder).damaged() == [path.name]
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert StoreWriter(folder).damaged() == [path.name]
        path.write_bytes(content)
    assert StoreWriter(folder).missing() == StoreWriter(folder).damaged() == []
    assert set(read_manifest(folder).shards[0].files) == {path.name for path in folder.glob("*-00000*")}


def test_of_a_store_that_is_not_finished_a_shard_without_its_scales_is_missing(folder):
    planned = read_manifest(folder)
    (folder / "manifest.json").unlink()
    writer = begin(folder, WANTED, RECORDS)
    assert writer.missing() == [] and planned.shards[1].files and not writer.manifest.shards[1].files
    (folder / "multi-x2-int8-00001.scales.npy").unlink()
    assert writer.missing() == [1]


@pytest.mark.slow
def test_of_many_shards_at_most_256_files_are_mapped_at_a_time(tmp_path):
    records = {f"d{n}": f"{n:032x}" for n in range(300)}
    write(begin(tmp_path / "made", replace(WANTED, shard_size=1), records))
    store = EmbeddingStore(tmp_path / "made")
    vectors = np.concatenate(list(store.single(View("single", 8))))
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert len(vectors) == 300 and 0 < len(mapped) <= 256


def test_a_lost_shard_is_made_again_and_the_rest_stays(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "multi-00001.npy").write_bytes(b"cut")
    (folder / "ids-00002.jsonl").unlink()
    (folder / "x.partial").write_text("of a run that was killed")
    writer = begin(folder, WANTED, RECORDS)
    assert writer.missing() == [1] and not writer.finished and not (folder / "x.partial").exists()
    assert not list(folder.glob("*-00001*.npy"))
    with pytest.raises(InputError, match=r"shards 1 are not there"):
        writer.finish()
    write(writer)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    again = begin(folder, WANTED, RECORDS)
    assert again.finished and again.missing() == []


def test_what_is_added_is_new_or_changed_and_what_was_taken_out_stays_out(folder):
    remove(folder, ["d1", "d3"])
    changed = {**RECORDS, "d0": "a" * 32, "d9": "b" * 32}
    with pytest.raises(InputError, match=r"changed: add what changed to it with --append"):
        begin(folder, WANTED, changed)
    write(begin(folder, WANTED, changed, append=True))
    store = EmbeddingStore(folder)
    assert store.ids == ["d2", "d4", "d0", "d9"] and store.manifest.removed == (0, 1, 3)
    assert [shard.records for shard in store.manifest.shards] == [2, 2, 1, 2]
    assert store.manifest.content_hash == combined(changed[name] for name in store.ids)
    np.testing.assert_allclose(
        np.concatenate(list(store.single(View("single", 8)))),
        np.stack([vectors_of(n)[0] for n in store.ids]),
        atol=1e-6,
    )
    writer = StoreWriter(folder)
    assert [writer.hidden(n) for n in range(4)] == [{0, 1}, {1}, set(), set()] and writer.ids(3) == ["d0", "d9"]
    assert begin(folder, WANTED, changed, append=True).finished, "nothing more to add"
    back = {**changed, "d1": "c" * 32}  # another than what was taken out
    write(begin(folder, WANTED, back, append=True))
    assert EmbeddingStore(folder).ids == ["d2", "d4", "d0", "d9", "d1"]


def test_a_record_that_changed_and_changed_back_is_none_that_was_taken_out(folder):
    for records in ({**RECORDS, "d0": "a" * 32}, RECORDS):
        write(begin(folder, WANTED, records, append=True))
    store = EmbeddingStore(folder)
    assert store.manifest.removed == (0, 5) and store.ids == ["d1", "d2", "d3", "d4", "d0"]
    assert begin(folder, WANTED, RECORDS).finished, "of just these records, none taken out"


def test_a_plan_of_which_nothing_was_encoded_gives_way_to_another(tmp_path):
    begin(tmp_path, WANTED, RECORDS)
    other, fewer = replace(WANTED, fingerprint="g"), dict(list(RECORDS.items())[:2])
    write(begin(tmp_path, other, fewer))
    assert read_manifest(tmp_path).fingerprint == "g" and len([*tmp_path.glob("ids-*")]) == 1


def test_what_cannot_be_taken_out_is_said_and_nothing_is(folder):
    stated = (folder / "manifest.json").read_bytes()
    for ids, says in (
        (["d0", "x", "y"], r"no record 'x' \(and 1 more\)"),
        (["x"], "no record 'x':"),
        (list(RECORDS), "nothing would be left"),
    ):
        with pytest.raises(InputError, match=says):
            remove(folder, ids)
    assert (folder / "manifest.json").read_bytes() == stated
    assert remove(folder, ["d4", "d4"]) == 1 and read_manifest(folder).removed == (4,)
    (folder / "plan.json").write_bytes(stated)
    with pytest.raises(InputError, match="not finished"):
        remove(folder, ["d0"])


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (
            {"fingerprint": "g"},
            r"another fingerprint \(f, not g\): use another folder, or remove it, or put its checkpoint",
        ),
        ({"pooling": "mean"}, r"another pooling \(ward, not mean\)"),
        ({"shard_size": 3}, r"another shard_size \(2, not 3\)"),
        (
            {"arrays": SPECS[:2]},
            r"arrays \(--views: single and multi and multi-x2-int8 and single-binary, not single and multi\)",
        ),
    ],
)
def test_another_store_in_the_folder_is_refused_with_what_differs(folder, tmp_path, other, says):
    with pytest.raises(InputError, match=says):
        begin(folder, Manifest(**{**vars(WANTED), **other}), RECORDS)
    half = begin(tmp_path / "plan", WANTED, RECORDS)
    np.save(half.folder / "single-00000.npy", np.zeros((2, 8)))
    with pytest.raises(InputError, match=says):
        begin(tmp_path / "plan", Manifest(**{**vars(WANTED), **other}), RECORDS)
    free = {"command": "again", "commit": "1", "checkpoint": "moved", "data": "moved"}
    assert begin(folder, Manifest(**{**vars(WANTED), **free}), RECORDS).finished


def test_other_records_are_refused_unless_they_are_to_be_added(folder):
    with pytest.raises(InputError, match=r"content_hash \(the data's records changed\).*--append$"):
        begin(folder, WANTED, {**RECORDS, "d0": "f" * 32})
    begin(folder, WANTED, {**RECORDS, "d5": "f" * 32}, append=True)
    assert (folder / "plan.json").is_file() and EmbeddingStore(folder).ids == list(RECORDS), "readable meanwhile"
    with pytest.raises(InputError, match="records were being added"):
        begin(folder, WANTED, RECORDS)


def test_no_or_half_a_manifest_is_said(folder, tmp_path):
    with pytest.raises(InputError, match=r"not a store \(no manifest.json\)"):
        read_manifest(tmp_path)
    begin(tmp_path / "plan", WANTED, RECORDS)
    with pytest.raises(InputError, match=r"not finished: run encode\.py again"):
        read_manifest(tmp_path / "plan")
    path = folder / "manifest.json"
    stated = json.loads(path.read_text())
    for wrong, says in (
        ({**stated, "format": 1}, "format: 1 is not 2"),
        ([], "cannot be read"),
        ({"format": 2}, "cannot be read"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(InputError, match=says):
            read_manifest(folder)
    for row in (-1, 5):
        path.write_text(json.dumps({**stated, "removed": [row]}))
        with pytest.raises(InputError, match="rows that are not there"):
            EmbeddingStore(folder)


@pytest.mark.parametrize("lines", ['{"id": "d0"}\n', "[]\n", "x\n", '{"id": "d0", "hash": "00"}\n', ""])
def test_ids_that_are_not_those_that_were_planned_are_said(folder, lines):
    (folder / "ids-00001.jsonl").write_text(lines)
    with pytest.raises(InputError, match=r"ids-00001.jsonl: not whole"):
        EmbeddingStore(folder)
    assert begin(folder, WANTED, RECORDS).finished and EmbeddingStore(folder).ids == list(RECORDS)
