"""docs/benchmarks.md says what the results say, and says plainly what is missed or missing."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("page")


def test_the_page_is_what_the_results_say(page):
    before = page.PAGE.read_text(encoding="utf-8")
    assert before == page.replaced(before, page.rendered(page.RESULTS)), "python benchmarks/page.py writes it"


def written(folder, name, rows, **more):
    content = {"command": f"run {name}", "commit": "abc", "machine": "2 cores", "rows": rows}
    (folder / f"{name}.json").write_text(json.dumps(content | more))


def test_a_missed_target_and_missing_results_are_said(page, tmp_path):
    case = {"case": "pages"}
    rows = [
        case | {"tool": "colmrl: embed", "version": "1", "median_s": 2.0, "peak_mib": 100},
        case | {"tool": "colmrl: store", "version": "1", "median_s": 1.0},
        case | {"tool": "slow", "version": "2", "median_s": 9.0},
        case | {"tool": "quick", "version": "3", "median_s": 2.999, "peak_mib": 200, "max_difference": 1e-6},
    ]
    written(tmp_path, "encode", rows)
    text = page.rendered(tmp_path)
    said = "| encoding: pages | 2.00 s | quick 3 | 3.00 s | 1.49× | ≥ 1.5× | **no** | 100 MiB / 200 MiB |"
    assert f"{said} differ by 1e-06 |" in text and "`maxsim`" in text and "`train`" in text and "`encode`" not in text
    written(
        tmp_path, "encode", [row | {"median_s": row["median_s"] * (2 if row["tool"] == "quick" else 1)} for row in rows]
    )
    assert "| 2.99× | ≥ 1.5× | yes |" in page.rendered(tmp_path)


def test_a_run_beside_some_peers_speaks_only_where_the_best_was_among_them(page, tmp_path):
    fp32 = "colmrl, fp32"
    full = [{"case": c, "tool": t, "median_s": s} for c in ("many", "one") for t, s in ((fp32, 1.0), ("near", 4.0))]
    full += [{"case": "one", "tool": "nearest", "median_s": 1.2}]
    again = [{"case": c, "tool": t, "median_s": s} for c in ("many", "one") for t, s in ((fp32, 1.0), ("near", 3.8))]
    written(tmp_path, "maxsim", full)
    written(tmp_path, "maxsim-fp32", again)
    text = page.rendered(tmp_path)
    assert "MaxSim, fp32, again: many" in text and "MaxSim, fp32, again: one" not in text
    assert "| MaxSim, fp32: one | 1.00 s | nearest | 1.20 s | 1.20× | ≥ 3.5× | **no** |" in text


def test_lines_that_tests_run_and_changes_that_they_miss_are_rows(page, tmp_path):
    files = {
        f"{at}colmrl/{name}": {"summary": {"num_statements": 10, "covered_lines": covered}}
        for at, name, covered in (("", "view.py", 10), ("/x/", "store/reader.py", 7), ("", "models/sources/bare.py", 4))
    }
    (tmp_path / "report.json").write_text(json.dumps({"files": files}))
    out = tmp_path / "coverage.json"
    importlib.import_module("covered").main(["--report", str(tmp_path / "report.json"), "--out", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert [(row["package"], row["percent"]) for row in rows] == [
        ("colmrl", 100),
        ("colmrl/models", 40),
        ("colmrl/store", 70),
    ]
    tried = {"changes": 1000, "mutants": 20, "killed": 19, "low": 0.76, "high": 0.99, "survived": [{}]}
    written(tmp_path, "mutants", [{"module": "view", **tried}])
    text = page.rendered(tmp_path)
    assert "| line coverage of all tests | 30 lines of colmrl/ | 21 are run (70.0%) | 9 | `make coverage` |" in text
    assert "| mutants: view | 20 of 1,000 changes | 19 noticed (76% to 99%) | not noticed: 1 |" in text


def test_growth_that_is_not_linear_or_flat_is_said(page, tmp_path):
    size = {"documents": 4, "cpu_s": 1.0, "own_mib": 2, "peak_mib": 3, "disk_bytes": 0}
    row = {"case": "eval", "tool": "colmrl", "sizes": [size] * 3, "exponent": 1.5, "linear": False, "flat": False}
    written(tmp_path, "scale", [row], paper=[])
    assert "| n^1.50 | **no** | **no** |" in page.rendered(tmp_path)
