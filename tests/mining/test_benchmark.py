import importlib.util
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "benchmarks/mining.py"


@pytest.mark.slow
def test_both_tools_mine_the_same_negatives_through_files_as_from_memory(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(SOURCE.parent)
    spec = importlib.util.spec_from_file_location("benchmark_of_mining", SOURCE)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.prepare(tmp_path, 600, 16)
    for tool in benchmark.TOOLS:
        benchmark.prepare_tool(tool, tmp_path)()()
    for tool in benchmark.TOOLS:
        found = benchmark.compare(tmp_path, tool)
        assert found["not_by_ties"] == 0 and found["same"] > 0.99 and found["queries_with_negatives"] > 50
