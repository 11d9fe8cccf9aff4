"""An address → its collection. The engines are an extra, and imported only when they are asked for."""

from importlib.util import find_spec

from colmrl.database.address import Address
from colmrl.database.collection import Collection
from colmrl.errors import InputError


def connect(address: Address, token: str | None = None) -> Collection:
    """`token`: of a server; None: from QDRANT_API_KEY, where it is set."""
    package, module = ("qdrant-client", "qdrant_client") if address.remote else ("qdrant-edge-py", "qdrant_edge")
    if find_spec(module) is None:
        raise InputError(f"{address}: {package} is not installed: pip install -e '.[database]'")
    if address.remote:
        from colmrl.database.cluster import ClusterCollection

        return ClusterCollection(address, token)
    from colmrl.database.embedded import EmbeddedCollection

    return EmbeddedCollection(address)
