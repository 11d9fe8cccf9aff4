"""What a million and a hundred million pages cost at each view, from unit costs that scale.py has just measured.

Measured: bytes a document (the view grammar; ids and hashes from the stores), bytes of an index a vector, nanoseconds
that exact search and an index take a product of one dimension (one core, one query at a time), and, from
benchmarks/results/database.json where it is there, what Qdrant took for 20,000 pages. Everything else is these times
the number of pages: nothing of that size was run here. An index looks into `probes` of its lists, so what a query
scans follows from its settings; above 2.8 million vectors lists are no longer as many as would suit (index.lists,
index.training_vectors). `encode`: hours of one device at PAGES_A_SECOND, which is assumed and stands in the header;
what a tiny model takes on a core is in the first table, and says nothing of a real one.
"""

import json
import math
from pathlib import Path
from typing import Any

PAGES = (1_000_000, 100_000_000)
PAGES_A_SECOND = 10.0  # assumed: one GPU, a 2 to 3 B model, 768 visual tokens a page; measure yours with encode.py
QUERY_TOKENS = 16  # of a query at multi, assumed
CANDIDATES, PROBES, TRAINED_ON = 100, 32, 262_144  # as `colmrl index` takes them by itself
RAM = 256 << 30  # of one machine
NODE = 64 << 30  # of one node of a cluster
CORES = 16  # of a machine or node, which a query's products and probes are shared by: assumed to help in full
FULL_PAGE = 1764  # vectors of a page in full: 1,344 × 1,344 pixels at 32 × 32 a vector
VIEWS = (
    ("single@64", 1), ("single@256", 1), ("single@256:fp16", 1), ("single@256:int8", 1), ("single@256:binary", 1),
    ("multi@64x32", 32), ("multi@64x32:binary", 32), ("multi@128x32:int8", 32), ("multi@128", FULL_PAGE),
    ("multi@128:int8", FULL_PAGE), ("multi@128:binary", FULL_PAGE),
)  # fmt: skip


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a view and number of pages; none where the stages that it needs were not measured."""
    units = unit_costs(rows)
    return [row(view, vectors, pages, units) for view, vectors in VIEWS for pages in PAGES] if units else []


def unit_costs(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Nanoseconds a dimension of a product, and bytes a dimension of an index, from the largest size."""
    from scale_data import MULTI, SINGLE, TOKENS, VECTORS

    last = {one["case"]: one["sizes"][-1] for one in rows}
    needed = ("search single@256, exact", "search multi@64, exact", "index ivf single@256", "index ivf multi@64")
    if any(name not in last for name in needed):
        return {}
    exact, exact_multi, single, multi = (last[name] for name in needed)
    return {
        "exact_ns": exact["cpu_s"] * 1e9 / (exact["documents"] * SINGLE),
        "exact_multi_ns": exact_multi["cpu_s"] * 1e9 / (exact_multi["documents"] * VECTORS * MULTI * TOKENS),
        "ivf_ns": _scan_ns(last["search single@256, ivf"], 1, SINGLE, 1),
        "ivf_multi_ns": _scan_ns(last["search multi@64, ivf"], VECTORS, MULTI, TOKENS),
        "ivf_bytes": single["disk_bytes"] / (single["documents"] * SINGLE),
        "ivf_multi_bytes": multi["disk_bytes"] / (multi["documents"] * VECTORS * MULTI),
    }


def _scan_ns(size: dict[str, float], vectors: int, dim: int, tokens: int) -> float:
    """Of an index's query: all of its time over what it looks at, lists' centres included."""
    return size["cpu_s"] * 1e9 / (scanned(size["documents"] * vectors) * dim * tokens)


def scanned(vectors: float) -> float:
    """Vectors that a query's vector is compared with: the lists' centres, then what is in the lists."""
    lists = max(1, min(round(4 * math.sqrt(vectors)), TRAINED_ON // 39))
    return lists + vectors * min(1.0, PROBES / lists)


def row(view: str, vectors: int, pages: int, units: dict[str, float]) -> dict[str, Any]:
    from colmrl.view import View

    parsed = View.parse(view)
    bytes_a_page = parsed.bytes_per_document(vectors)
    single, all_vectors = parsed.head == "single", pages * vectors
    tokens = 1 if single else QUERY_TOKENS
    exact_s = all_vectors * parsed.dim * tokens * units["exact_ns" if single else "exact_multi_ns"] / 1e9
    index_s = scanned(all_vectors) * parsed.dim * tokens * units["ivf_ns" if single else "ivf_multi_ns"] / 1e9
    index_bytes = all_vectors * parsed.dim * units["ivf_bytes" if single else "ivf_multi_bytes"]
    index_bytes /= 2 if single and parsed.precision == "fp16" else 1  # the only precision that an ivf index keeps
    coded_bytes = all_vectors * (parsed.dim / 8 + 16)  # rabitq: a bit a dim, two numbers, the document's
    return {
        "view": view,
        "vectors": vectors,
        "pages": pages,
        "bytes_a_page": bytes_a_page,
        "storage_bytes": pages * bytes_a_page,
        "exact_query_s": exact_s,
        "index_query_s": index_s,
        "index_bytes": index_bytes,
        "coded_index_bytes": coded_bytes,
        "encode_hours": pages / PAGES_A_SECOND / 3600,
        "engine": engine(pages * bytes_a_page, exact_s, index_bytes, coded_bytes, index_s),
    }


def engine(storage: float, exact_s: float, index_bytes: float, coded_bytes: float, index_s: float) -> str:
    """By rules, in this order: what answers in 0.1 s exactly, what fits into one machine, what a cluster can hold."""
    if exact_s / CORES <= 0.1 and storage <= RAM:
        return "exact, no index"
    quick = index_s / CORES <= 1
    if index_bytes <= RAM and quick:
        return "FAISS ivf, one machine"
    if coded_bytes <= RAM and quick:
        return "FAISS rabitq, one machine"
    nodes = math.ceil(max(coded_bytes / NODE, index_s / CORES))
    return f"Qdrant, {nodes} nodes" if nodes <= 64 else "none: pool, or a funnel"


def markdown(paper: list[dict[str, Any]]) -> str:
    head = (
        "| view | vectors | bytes a page | pages | on disk | encode, h | exact, a query | ivf, a query | ivf in memory "
    )
    lines = [
        f"Assumed: {PAGES_A_SECOND:g} pages a second to encode, {QUERY_TOKENS} vectors a query at multi. Times are one "
        f"core's; the engine is chosen for machines of {CORES} cores and {RAM >> 30} GB. Measured: bytes a page, bytes "
        "and nanoseconds a dimension of the searches above; all else is extrapolated from these. A query of a cluster "
        "was not timed: no server was at hand. A funnel (`single@256/1000+multi@64x32`) costs its first stage, and the "
        "vectors of 1,000 pages read from disk: 8 MB at multi@64x32, 903 MB of whole pages.",
        "",
        head + "| rabitq in memory | engine |",
        "|---" * 11 + "|",
    ]
    for one in paper:
        lines.append(
            f"| {one['view']} | {one['vectors']:,} | {one['bytes_a_page']:,.0f} | {one['pages'] // 10**6} M "
            f"| {size(one['storage_bytes'])} | {one['encode_hours']:,.0f} | {seconds(one['exact_query_s'])} "
            f"| {seconds(one['index_query_s'])} | {size(one['index_bytes'])} | {size(one['coded_index_bytes'])} "
            f"| {one['engine']} |"
        )
    return "\n".join(lines)


def database_units(folder: Path = Path(__file__).parent / "results") -> dict[str, float] | None:
    """What Qdrant took for a document of 48 vectors × 128 dims and one of 128, where that was measured."""
    path = folder / "database.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text())["rows"]
    multi = next(one for one in found if one["case"] == "fp32" and one["view"] == "multi@128")
    return {
        "documents": multi["documents"],
        "bytes_a_document": multi["bytes"] / multi["documents"],
        "put_in_s": (multi["killed_s"] + multi["resumed_s"]) / multi["documents"],
        "query_s": multi["median_s"],
    }


def size(count: float) -> str:
    for unit, least in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= least:
            return f"{count / least:,.1f} {unit}" if count < 100 * least else f"{count / least:,.0f} {unit}"
    return f"{count / 1e3:,.0f} kB"


def seconds(s: float) -> str:
    return f"{s * 1e3:,.1f} ms" if s < 0.1 else f"{s * 1e3:,.0f} ms" if s < 10 else f"{s:,.0f} s"
