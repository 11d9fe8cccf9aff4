"""colmrl: train, encode, mine and judge a vision-language retriever at every size it can be served at."""

__version__ = "0.1.0"
