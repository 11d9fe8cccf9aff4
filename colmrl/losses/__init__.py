"""Losses: pure functions of tensors. What is gathered across processes is gathered before they are called."""
