"""ColBERTs that PyLate made and saved, in its own environment (python benchmarks/run.py interop makes it)."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import interop_sources  # noqa: E402
import peers  # noqa: E402

COLBERTS = [case for case in interop_sources.CASES if case.tool == "pylate"]


@pytest.mark.slow
@pytest.mark.skipif(
    not (peers.ROOT / "pylate" / "installed").is_file(),
    reason="PyLate has no environment here: python benchmarks/run.py interop makes one",
)
@pytest.mark.parametrize("case", COLBERTS, ids=lambda case: case.name)
def test_a_colbert_gives_the_vectors_of_pylate(case, tmp_path):
    base = interop_sources.base_of(case.base, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    folder = interop_sources.made_by_peer(case, base, out, tmp_path / "none.png")
    assert interop_sources.largest_difference(folder, out, case, tmp_path / "none.png") < 2e-6
