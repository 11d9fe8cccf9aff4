"""MiniLM's real weights through a checkpoint and an export into SentenceTransformer; skipped, saying so, without
../shared."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(ROOT / "benchmarks"))
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")


@pytest.mark.slow
def test_minilm_ranks_a_sixth_of_scifact_the_same_after_a_round_trip(tmp_path):
    """.8082 is SentenceTransformer's of the published folder (test_real.py); all of SciFact, .6451 before and after, is
    `python benchmarks/interop_targets.py minilm`."""
    from interop_targets import round_trip

    before, after, error = round_trip(tmp_path, SHARED, 8)
    assert before == pytest.approx(0.8082, abs=0.001) and after == pytest.approx(before, abs=1e-4)
    assert error < 1e-5
