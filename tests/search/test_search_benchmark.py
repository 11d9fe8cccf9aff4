import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_the_search_benchmark_measures_every_way_against_exact_search(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = importlib.import_module("search")
    benchmark.main(["--quick", "--work", str(tmp_path), "--out", str(tmp_path / "found.json")])
    rows = {row["way"]: row for row in json.loads((tmp_path / "found.json").read_text())["rows"]}
    assert len(rows) == len(benchmark.WAYS)
    assert rows["exact"]["recall_at_10"] == 1 == rows["exact"]["of_exact"]
    assert (
        rows["token ivf, 32 probes, 200 candidates"]["recall_at_10"]
        > rows["token rabitq, 4 probes, 50 candidates"]["recall_at_10"]
        > 0.3
    )
    assert rows["token ivf, as built by default"]["bytes"] > rows["token rabitq, 8 probes, 50 candidates"]["bytes"] > 0
