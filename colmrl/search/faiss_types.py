"""Which FAISS index (arXiv:2401.08281) each type is, and how it is trained; all rank by inner product.

single: flat; hnsw (arXiv:1603.09320); ivf: whole vectors in lists; ivfpq: product quantization (arXiv:1702.08734), two
bits a dim; rabitq: one bit a dim after a random rotation (arXiv:2405.12497).
multi: one index of all tokens, in lists: ivf one byte a dim, ivfpq and rabitq as above.
"""

import logging
import math
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float

from colmrl.config import IndexType
from colmrl.errors import InputError
from colmrl.view import View

log = logging.getLogger(__name__)
LISTED: tuple[IndexType, ...] = ("ivf", "ivfpq", "rabitq")
LOSSY: tuple[IndexType, ...] = ("ivfpq", "rabitq")
ON_GPU: tuple[IndexType, ...] = ("flat", "ivf", "ivfpq")
_LINKS = 32  # of a vector in HNSW's graph
_LIST_POINTS, _CODE_POINTS = 39, 256  # fewest training vectors a centroid (faiss's), and for a byte's codes


def check_type(view: View, kind: IndexType) -> None:
    """Raise an InputError unless there is such an index of such a view."""
    if view.head == "multi" and kind == "flat":
        raise InputError("index.type: flat: exact MaxSim needs no index: search without one, or build ivf or rabitq")
    if view.head == "multi" and kind == "hnsw":
        raise InputError("index.type: hnsw: a graph of every token is larger than the tokens: build ivf or rabitq")


def lists_for(asked: int | None, vectors: int, training: int) -> int:
    """As asked, or about 4√n, as far as the training vectors suffice."""
    if asked is None:
        return max(1, min(round(4 * math.sqrt(vectors)), training // _LIST_POINTS))
    if asked > training:
        raise InputError(
            f"index.lists: {asked} lists cannot be trained on {training} vectors: leave it null, or give at most "
            f"{max(1, training // _LIST_POINTS)}"
        )
    return asked


def new_index(view: View, kind: IndexType, lists: int | None, training: int) -> Any:
    """An empty index."""
    halved = view.precision == "fp16"
    match kind:
        case "flat":
            spec = "SQfp16" if halved else "Flat"
        case "hnsw":
            spec = f"HNSW{_LINKS},{'SQfp16' if halved else 'Flat'}"
        case "ivf" if view.head == "multi":
            spec = f"IVF{lists},SQ8"
        case "ivf":
            spec = f"IVF{lists},{'SQfp16' if halved else 'Flat'}"
        case "ivfpq":
            if training < _CODE_POINTS:
                raise InputError(
                    f"index.type: ivfpq: {training} vectors do not suffice to train its codes, {_CODE_POINTS} do: "
                    "use flat" + ("" if view.head == "single" else " search, without an index")
                )
            spec = (
                f"IVF{lists},PQ{max(m for m in range(1, view.dim // 4 + 1) if view.dim % m == 0)}x8np"  # np: codes are
            )
            # not reordered for Hamming distances (polysemous), which takes longer than the rest and is not used
        case "rabitq":
            spec = f"RR{view.dim},IVF{lists},RaBitQ"
    return faiss.index_factory(view.dim, spec, faiss.METRIC_INNER_PRODUCT)


def train(index: Any, vectors: Float[np.ndarray, "n h"], seed: int, gpu: bool) -> None:
    """Train lists and codes; the lists on all GPUs where `gpu` is set and faiss sees any."""
    if index.is_trained:
        return
    listed: Any = faiss.try_extract_index_ivf(index)
    if listed is not None:
        listed.cp.seed = seed
        _say_if_few(faiss.downcast_index(listed), len(vectors))
        if gpu and faiss.get_num_gpus():
            clustering = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(index.d))
            listed.clustering_index = clustering
            index.train(vectors)
            listed.clustering_index = None
            return
    index.train(vectors)


def _say_if_few(listed: Any, vectors: int) -> None:
    """One line instead of faiss's, which says it of every clustering, and of a product quantizer's every part."""
    codes = hasattr(listed, "pq")
    listed.cp.min_points_per_centroid = 1
    if codes:
        listed.pq.cp.min_points_per_centroid = 1
    if vectors < _LIST_POINTS * (centroids := max(listed.nlist, _CODE_POINTS if codes else 0)):
        log.warning(
            "attention: %d training vectors for %d centroids (%d lists%s): fewer than %d a centroid: they are coarse",
            vectors,
            centroids,
            listed.nlist,
            f", codes of {_CODE_POINTS}" if codes else "",
            _LIST_POINTS,
        )


def set_probes(index: Any, kind: IndexType, probes: int) -> None:
    if kind == "hnsw":
        index.hnsw.efSearch = probes
    elif kind in LISTED:
        faiss.extract_index_ivf(index).nprobe = min(probes, faiss.extract_index_ivf(index).nlist)
