"""What is given wrongly is said before anything heavy is imported, in the words of the work itself."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from colmrl.config import SampleKind
from colmrl.configure import load_config
from colmrl.data.samples import KINDS
from colmrl.encoding import encode
from colmrl.errors import InputError
from colmrl.evaluation.run import open_task
from colmrl.exporting.asked import check
from colmrl.exporting.run import Asked, export
from colmrl.loop import loop
from colmrl.mining import mine
from colmrl.models.retriever import Retriever
from colmrl.training.run import train

ROOT = Path(__file__).parent.parent.parent
HEAVY = ("torch", "transformers", "faiss", "numpy", "mteb")
CODE = """
import json, sys
from typer.testing import CliRunner
from colmrl.cli.main import main_app
said = []
for arguments in json.loads(sys.argv[1]):
    done = CliRunner().invoke(main_app, arguments)
    assert done.exit_code == 2, (arguments, done.output, done.exception)
    said.append(done.output.strip())
print(json.dumps([said, [name for name in json.loads(sys.argv[2]) if name in sys.modules]]))
"""


@pytest.fixture(scope="module")
def sees(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sees")
    Retriever.create(load_config(None, [f"model.backbone={tiny('internvl')}"])).save(folder / "c")
    return folder / "c"


def said_by(*calls):
    command = [sys.executable, "-c", CODE, json.dumps(calls), json.dumps(HEAVY)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, heavy = json.loads(done.stdout)
    assert not heavy
    return said


def test_what_is_wrong_is_said_without_a_heavy_library_and_as_the_work_would(sees, tmp_path):
    nowhere, out, settings = str(tmp_path / "nowhere"), tmp_path / "out", load_config(None, [])
    wrong = {
        ("encode", "--checkpoint", nowhere, "--data", nowhere): lambda: encode(settings, nowhere, nowhere, out),
        ("encode", "--checkpoint", str(sees), "--data", nowhere): lambda: encode(settings, sees, nowhere, out),
        ("mine", "--store", nowhere): lambda: mine(settings, nowhere, out),
        ("eval", "--store", nowhere): lambda: open_task(settings, nowhere),
    }
    for to, head in (("pylate", None), ("colpali-engine", None), ("onnx", None), ("vllm", "multi"), ("vllm", None)):
        more = ("--head", head) if head else ()
        asked = Asked(to, head)
        wrong["export", str(sees), "--to", to, *more, "--out", str(out)] = lambda asked=asked: export(sees, asked, out)
    for line, work in zip(said_by(*wrong), wrong.values(), strict=True):
        with pytest.raises(InputError) as error:
            work()
        assert line == f"error: {error.value}"
    assert not out.exists()


def test_a_backbone_and_data_that_cannot_be_are_said_before_a_run_begins(sample, tmp_path):
    nowhere, out = str(tmp_path / "nowhere"), tmp_path / "out"
    given = [f"output={out}", f"data.path={sample}/train"]
    wrong = {
        ("train", f"model.backbone={nowhere}"): (train, "no such folder: give a folder, or a hub id"),
        ("train", f"data.path={nowhere}"): (train, "no such data set: check data.path"),
        ("loop", f"model.backbone={nowhere}"): (loop, "no such folder: give a folder, or a hub id"),
        ("loop", f"data.path={nowhere}"): (loop, "no such data set: check data.path"),
        ("loop", f"data.eval_path={nowhere}"): (loop, "no such data set: check data.eval_path"),
        ("train", f"data.eval_path={nowhere}", "train.eval_steps=1"): (train, "check data.eval_path"),
        ("train", f"train.init_from={nowhere}"): (train, f"train.init_from: {nowhere!r}: no such folder"),
        ("train", "model.backbone=tests/nowhere"): (train, "'tests/nowhere': no such folder: give a folder"),
        ("train", "model.backbone=tiny:nowhere"): (train, "tiny:nowhere: unknown: choose from qwen2_vl"),
        ("train", "data.path=sample:nowhere"): (train, "data.path: sample:nowhere: no such sample: choose from shapes"),
    }
    calls = [(command, *given, "model.backbone=tiny:internvl", *settings) for command, *settings in wrong]
    for line, call, (work, expected) in zip(said_by(*calls), calls, wrong.values(), strict=True):
        with pytest.raises(InputError) as error:
            work(load_config(None, list(call[1:])))
        assert line == f"error: {error.value}" and expected in line and "nowhere" in line
    assert not out.exists() and set(KINDS) == set(get_args(SampleKind))


def test_a_view_that_was_not_trained_is_said_without_a_heavy_library(store):
    calls = [
        ("index", "--store", str(store), "--view", "single@5"),
        ("search", "--store", str(store), "--query", "a circle", "--view", "single@32/5+multi@5"),
        ("mine", "--store", str(store), "--view", "nonsense"),
    ]
    single, multi, nonsense = said_by(*calls)
    assert "'single@5' was not trained" in single and "'multi@5' was not trained" in multi
    assert "view 'nonsense': not of the form" in nonsense


def test_views_that_a_checkpoint_lacks_and_names_that_are_empty_are_said(sees, store, tmp_path):
    data, model, there = str(tmp_path), str(sees), str(store)
    calls = {
        ("encode", "--checkpoint", model, "--data", data, "--views", "single@17"): "'single@17' was not trained",
        ("eval", "--checkpoint", model, "--data", data, "--views", "multi@3"): "'multi@3' was not trained",
        ("index", "--store", there, "--view", ""): "view '': none is named: give e.g. single@64",
        ("search", "--store", there, "--query", "a", "--view", " ,"): "view ' ,': none is named",
        ("mine", "--store", ""): "--store: no name: give the folder that encode.py wrote",
        (
            "export",
            "",
            "--to",
            "pylate",
            "--out",
            str(tmp_path / "e"),
        ): "CHECKPOINT: no name: give the OUTPUT/checkpoint",
        ("encode", "--checkpoint", "", "--data", data): "not a colmrl checkpoint (no name)",
    }
    for said, expected in zip(said_by(*calls), calls.values(), strict=True):
        assert expected in said


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_damaged_processor_is_said_before_an_export(sees, tmp_path, content):
    broken = shutil.copytree(sees, tmp_path / "broken")
    (broken / "processor/config.json").write_text(content)
    with pytest.raises(InputError, match=r"processor/config\.json: cannot be read .*copy the checkpoint whole again"):
        check(broken, Asked("pylate"))


def test_the_benchmark_says_how_long_a_command_takes(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    startup = importlib.import_module("startup")
    start = startup.Start("help", "colmrl", "0", "--version", (sys.executable, "--version"), 0, True)
    wrong = startup.Start("help", "colmrl", "0", "--no", (sys.executable, "-c", "raise SystemExit(3)"))
    [row] = startup.table({start: [startup.run(start)]})
    assert row["ratio"] == 1 and 0 < row["median_s"] < 1 and row["reached"] and row["peak_mib"] > 1
    with pytest.raises(SystemExit, match="ended with 3"):
        startup.run(wrong)
