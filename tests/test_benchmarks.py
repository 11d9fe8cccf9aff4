"""The benchmarks run, at a size of which the times mean nothing."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
def test_the_maxsim_benchmark_scores_the_same_with_each_tool(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    tools = ["int8 codes", "bf16 + fp32 rescoring"]
    importlib.import_module("maxsim").main(["--quick", "--out", str(tmp_path / "found.json"), "--only", *tools])
    found = json.loads((tmp_path / "found.json").read_text())
    rows = {row["tool"]: row for row in found["rows"] if row["case"] == "4 queries × 40 documents"}
    assert rows["colmrl, fp32"]["ratio"] == 1 and rows["colmrl, fp32"]["of_peak"] > 0
    assert rows["colmrl, int8 codes"]["equal"] and rows["colmrl, int8 codes"]["max_difference"] > 0
    assert rows["colmrl, bf16 + fp32 rescoring"]["same_top_10"]
    assert not found["skipped"]


@pytest.mark.slow
def test_the_training_benchmark_has_the_loss_curve_of_each_peer_that_is_here(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    importlib.import_module("train").main(["--quick", "--only", "texts, single", "--out", str(tmp_path / "found.json")])
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert [row["tool"] for row in rows] == ["colmrl", "sentence-transformers"]
    assert all(row["loss_difference"] < 1e-4 and row["epoch_s"] > 0 for row in rows) and len(rows[0]["losses"]) == 4
