"""What the sequences' baselines reach on the real Amazon Beauty; skipped, saying so, where it is absent."""

from pathlib import Path

import pytest

from colmrl.data.sequences import read_sequences
from colmrl.evaluation.baselines import markov, popularity
from colmrl.evaluation.metrics import mean, of_orders

FOLDER = Path(__file__).parents[2].parent / "shared/data/amazon_beauty"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is not there")


def test_popularity_and_markov_reach_the_checked_values():
    """Leave-one-out over all items: Hit@10 .0114 and .0624, Markov's nDCG@10 .0413 (../shared/README.md)."""
    collection = read_sequences(FOLDER)
    reached = {}
    for baseline in (popularity, markov):
        found = baseline(collection, "test", 10)
        reached[found.source] = mean(of_orders(found.of, found.qrels, ["recall_at_10", "ndcg_at_10"]))
    assert round(reached["popularity"]["recall_at_10"], 4) == 0.0114
    assert round(reached["Markov"]["recall_at_10"], 4) == 0.0624
    assert round(reached["Markov"]["ndcg_at_10"], 4) == 0.0413
