"""What the benchmarks of encoding and of reranking compare gives the same numbers; their times mean nothing here."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.slow
def test_the_encode_benchmark_writes_the_store_that_it_embeds(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    options = ["--quick", "--only", "pages, Qwen2.5-VL", "--tools", "colmrl: store"]
    importlib.import_module("encode").main([*options, "--out", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    embed, store = found["rows"]
    assert (embed["tool"], embed["ratio"], store["tool"]) == ("colmrl: embed", 1, "colmrl: store")
    assert store["equal"] and store["documents_per_cpu_s"] > 0 and 0 < store["preparing_s"] < store["median_s"]
    assert not found["skipped"]


@pytest.mark.slow
def test_the_rerank_speed_benchmark_scores_alike(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = importlib.import_module("rerank_speed")
    benchmark.prepare(tmp_path / "case", "Qwen3, yes or no", 2, 3)
    asked = json.loads((tmp_path / "case/asked.json").read_text())
    make = {"colmrl": benchmark.ours, benchmark.WHOLE: benchmark.whole, benchmark.TOOLS[1]: benchmark.theirs}
    scores = [tool(name, tmp_path / "case", asked)() for name, tool in make.items()]
    assert len(scores[0]) == 6 and np.ptp(scores[0]) > 0
    assert all(np.allclose(one, scores[0], atol=benchmark.EQUAL) for one in scores)
