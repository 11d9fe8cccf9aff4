"""For notebooks and programs: what the commands do, in the words of sentence-transformers (docs/api.md).

Everything is done by the code that the commands call; what is here turns texts and pictures into records, and gives
back tensors, lists and tables.
"""

from colmrl.api.found import Found, Hit
from colmrl.api.retriever import Retriever
from colmrl.api.stages import encode, train
from colmrl.api.stores import Store, open_store

__all__ = ["Found", "Hit", "Retriever", "Store", "encode", "open_store", "train"]
