"""A trained retriever in the layouts that other libraries and servers load, each with what it needs and nothing of ours."""
