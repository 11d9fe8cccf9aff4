"""The backbone, the two heads on its hidden states, and the retriever that is both, with its checkpoint folder."""
