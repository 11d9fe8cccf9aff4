"""A trained retriever in the layouts that other libraries and servers load, with no code of ours."""
