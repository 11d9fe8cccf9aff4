"""How good the answers are, at which price: metrics, runs over views, tables and pictures."""
