"""colmrl: train, encode, mine and judge a vision-language retriever at every size it can be served at.

In Python (docs/api.md): `Retriever`, `Store`, `open_store`, `encode`, `train`. They come from `colmrl.api`, read
when one of them is first asked for: `import colmrl` stays light.
"""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from colmrl.api import Retriever, Store, encode, open_store, train

__version__ = "0.1.0"
__all__ = ["Retriever", "Store", "encode", "open_store", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'colmrl' has no attribute {name!r}")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says at every start what it could use on CPUs
    import colmrl.api

    return getattr(colmrl.api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
