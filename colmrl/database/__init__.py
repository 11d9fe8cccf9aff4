"""A store in a vector database, Qdrant: in this process in a folder, or a server or cluster at an address."""

from colmrl.database.address import Address
from colmrl.database.searching import open_database
from colmrl.database.writing import Exported, export_index

__all__ = ["Address", "Exported", "export_index", "open_database"]
