"""A folder's database when things go wrong: two at once, no room, damaged files; and what agreement says of ties."""

import shutil
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("qdrant_edge")

from made_database import write_made

from colmrl.configure import load_config
from colmrl.database import Address, export_index, open_database
from colmrl.database.agreement import _recall
from colmrl.errors import InputError
from colmrl.search import Asked, Plan, Ranking
from colmrl.store import EmbeddingStore
from colmrl.view import parse_views

CONFIG = load_config(None, ["index.gpu=false", "threads=1"])
HOLD = """
import sys
from pathlib import Path
from colmrl.files import locked
with locked(Path(sys.argv[1]), beside=True):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_made(tmp_path_factory.mktemp("made"))


def put(store, address):
    return export_index(CONFIG, store, parse_views("single@16,multi@8"), address)


def test_a_second_export_into_the_same_collection_is_refused_and_writes_nothing(made, tmp_path):
    address = Address.parse(str(tmp_path / "db"))
    command = [sys.executable, "-c", HOLD, str(address.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"process {other.pid} on .* writes here: wait for it"):
            put(made, address)
        assert not address.folder.exists()
        other.stdin.close()
    assert put(made, address).added == 90


def test_too_little_room_is_said_before_anything_is_written(made, tmp_path, monkeypatch):
    address, usage = Address.parse(str(tmp_path / "db")), shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2 << 20))
    with pytest.raises(InputError, match=r"about 134,2..,... bytes are needed, 2,097,152 are free: free space"):
        put(made, address)
    assert not address.folder.exists()


def test_a_damaged_database_is_said_by_its_address(made, tmp_path):
    address = Address.parse(str(tmp_path / "db"))
    put(made, address)
    for path in (address.folder / "shard").rglob("*"):
        if path.is_file() and path.suffix in (".mmap", ".dat", ".json", ".bin"):
            path.write_bytes(path.read_bytes()[:7])
    documents, asked = EmbeddingStore(made / "documents"), Asked.of_store(EmbeddingStore(made / "queries"))
    with pytest.raises(InputError, match=rf"{address.place}#documents: its engine fails .*: export into another"):
        open_database(documents, Plan.parse("single@16"), address)[1].rank(asked, 5)


def test_of_documents_with_equal_scores_any_is_as_good():
    names = [str(i) for i in range(40)]

    def ranking(positions, scores):
        return Ranking(["q"], names, np.array([scores], np.float32), np.array([positions]))

    exact = ranking(range(10), [0.9] + [0.5] * 9)
    assert _recall([ranking(range(20, 30), [0.5] * 10)], [exact]) == 1.0
    assert _recall([ranking([0, *range(20, 29)], [0.9] + [0.4] * 9)], [exact]) == pytest.approx(0.1)
    assert _recall([ranking([-1] * 10, [-np.inf] * 10)], [exact]) == 0.0
