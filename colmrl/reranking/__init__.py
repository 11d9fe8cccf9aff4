"""Rerankers: what judges a few candidates a query, each by itself or against each other."""
