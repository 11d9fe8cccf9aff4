"""MiniLM's real weights through a checkpoint and an export into SentenceTransformer; skipped, saying so, without
../shared."""

import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(ROOT / "benchmarks"))
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is not there")


@pytest.mark.slow
def test_minilm_ranks_the_judged_documents_of_scifact_the_same_after_a_round_trip(tmp_path):
    """All of SciFact, .6451 before and after, is `python benchmarks/interop_targets.py minilm`."""
    from interop_targets import round_trip

    before, after, error = round_trip(tmp_path, SHARED, every=10**9)
    assert before == pytest.approx(0.8737, abs=0.001) and after == pytest.approx(before, abs=1e-4)
    assert error < 1e-5


def test_a_published_model_is_exported_with_its_own_licence(tmp_path):
    from colmrl.exporting.run import Asked, export

    out = export(SHARED / "models/all-MiniLM-L6-v2", Asked("sentence-transformers"), tmp_path / "e")
    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "apache-2.0" and "# all-MiniLM-L6-v2\n" in card
    assert "matryoshka" not in front["tags"] and "multi-vector" not in front["tags"]
    assert "Not trained with colmrl" in card and "truncate_dim=384)\n" in card
