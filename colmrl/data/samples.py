"""Generated data sets, one for each format, to try a recipe with before one's own data is there."""

from collections.abc import Callable
from pathlib import Path

from colmrl.data.qilin_sample import write_qilin_sample
from colmrl.data.sample import write_sample
from colmrl.data.sequences_sample import write_sequences_sample
from colmrl.data.table_sample import write_table_sample, write_triples_sample
from colmrl.data.video_pairs import write_video_sample
from colmrl.errors import InputError

KINDS: dict[str, Callable[[Path, int], object]] = {
    "shapes": write_sample,
    "video-pairs": write_video_sample,
    "qilin": write_qilin_sample,
    "sequences": write_sequences_sample,
    "query-image": write_table_sample,
    "triples": write_triples_sample,
}


def write_sample_of(kind: str, out: Path, seed: int = 0, searches: int | None = None) -> None:
    """Write the sample of a kind to a new folder; the same seed gives the same data. `searches`: of kind qilin."""
    if kind not in KINDS:
        raise InputError(f"sample:{kind}: no such sample: choose from {', '.join(KINDS)}")
    if searches is None:
        KINDS[kind](out, seed)
        return
    if kind != "qilin":
        raise InputError(f"--searches: of --kind qilin alone, not {kind}: leave it out")
    write_qilin_sample(out, seed, searches, test_searches=max(1, searches // 4))
