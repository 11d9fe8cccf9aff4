"""PyLate and colpali-engine open our folders, each in its own environment, by the code of the folder's card.

The environments are made by `python benchmarks/run.py interop` (a gigabyte each); where one is not there, its tests
say so.
"""

import json
import subprocess
from pathlib import Path

import pytest
from making import TEXTS, documents, largest_error, make, ours
from safetensors.torch import load_file

from colmrl.exporting.run import Asked, export

ROOT = Path(__file__).parents[2]
PEERS = Path.home() / ".cache/colmrl-peers"
pytestmark = pytest.mark.slow


def theirs(tool, folder, of, work):
    program = PEERS / tool / "bin/python"
    if not (PEERS / tool / "installed").exists():
        pytest.skip(f"{tool} is not installed in {PEERS}")
    shown = [{"text": one.text, "images": list(one.images)} for one in of]
    (work / "asked.json").write_text(json.dumps({"queries": TEXTS, "documents": shown}))
    script = ROOT / "benchmarks/interop_targets_peer.py"
    command = [program, script, tool, folder, work / "asked.json", work / "out.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(work / "out.safetensors")


def check(found, queries, expected):
    for role, embeddings in (("query", queries), ("document", expected)):
        for place, vectors in enumerate(embeddings.multi.unpack()):
            assert largest_error([found[f"{role}-{place}"]], vectors) < 2e-6, (role, place)


@pytest.mark.parametrize("family", ["bert", "qwen3"])
def test_pylate_gives_our_vectors(family, tiny, tmp_path):
    folder = make(tmp_path / "c", tiny(family), "model.tuning=lora", "model.max_query_tokens=9")
    of = documents(tmp_path, False)
    queries, expected = ours(folder, of)
    check(theirs("pylate", export(folder, Asked("pylate"), tmp_path / "e"), of, tmp_path), queries, expected)


@pytest.mark.parametrize(("family", "adapter"), [("qwen2_vl", False), ("qwen2_5_vl", True), ("qwen3_vl", True)])
def test_colpali_engine_gives_our_vectors(family, adapter, tiny, sample, tmp_path):
    folder = make(tmp_path / "c", tiny(family), "model.tuning=lora")
    of = documents(sample, True)[2:4]
    queries, expected = ours(folder, of)
    out = export(folder, Asked("colpali-engine", adapter=adapter), tmp_path / "e")
    assert (out / "adapter_config.json").exists() == adapter
    check(theirs("colpali-engine", out, of, tmp_path), queries, expected)
