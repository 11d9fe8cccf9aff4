"""Training on transformers.Trainer: examples → batches → InfoNCE over all sizes of both heads."""
