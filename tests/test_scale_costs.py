"""Growth is judged by its last quadrupling, and the paper table follows from unit costs alone."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def sizes(cpu, own, disk=0):
    return [
        {"documents": n, "cpu_s": c, "own_mib": o, "peak_mib": o, "disk_bytes": disk * n, "vector_bytes": 1}
        for n, c, o in zip((5_000, 20_000, 80_000), cpu, own, strict=True)
    ]


def test_what_grows_faster_than_linearly_or_holds_more_than_ids_is_not_let_pass(benchmark):
    row_of = benchmark("scale").row_of
    good = row_of("eval single@256", sizes((1, 2, 8), (10, 20, 25)))
    assert good["linear"] and good["flat"] and good["exponent"] == pytest.approx(1)
    bad = row_of("mine single@256", sizes((1, 2, 32), (10, 20, 80)))
    assert not bad["linear"] and not bad["flat"] and bad["exponent"] == pytest.approx(2)
    assert "flat" not in row_of("index flat single@256", sizes((1, 2, 8), (10, 20, 80)))


def test_a_page_costs_what_the_units_say(benchmark):
    costs = benchmark("scale_costs")
    assert costs.table([]) == []
    rows = [{"case": name, "sizes": sizes((1, 1, 0.008), (1, 1, 1), 1100)} for name in ("search single@256, exact",)]
    rows += [{"case": f"search {view}", "sizes": sizes((1, 1, 0.01), (1, 1, 1))} for view in ("single@256, ivf",)]
    rows += [{"case": f"search multi@64, {way}", "sizes": sizes((1, 1, 0.1), (1, 1, 1))} for way in ("exact", "ivf")]
    rows += [
        {"case": f"index ivf {view}", "sizes": sizes((1, 1, 9), (1, 1, 1), 1100)} for view in ("single@256", "multi@64")
    ]
    found = {(row["view"], row["pages"]): row for row in costs.table(rows)}
    million, more = (found["single@256", pages] for pages in costs.PAGES)
    assert million["storage_bytes"] == 1024e6 and more["storage_bytes"] == 1024e8
    assert million["exact_query_s"] == pytest.approx(0.1) and more["exact_query_s"] == pytest.approx(10)
    assert million["engine"] == "exact, no index" and more["engine"] == "FAISS ivf, one machine"
    assert found["multi@128", 10**8]["engine"] == "none: pool, or a funnel"
    assert more["index_query_s"] < more["exact_query_s"] / 5
    text = costs.markdown(list(found.values()))
    assert "| single@256 | 1 | 1,024 | 100 M | 102 GB |" in text and "extrapolated" in text
