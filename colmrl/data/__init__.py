"""Records (query, document, judgement, triple), their readers and writers, and the pictures behind them."""
