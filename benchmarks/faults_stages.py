"""The stages that faults.py disturbs: what each runs on a tiny InternVL and generated pictures, and what it leaves."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARYING = {"measured.json", "metrics.jsonl", "environment.json", ".lock"}  # seconds, of which no two runs share any
MORE: list[str] = []  # settings of a forked process alone


@dataclass(frozen=True)
class Stage:
    """`run(out)` as its command does; `kept`: what of `out` must be equal (empty: all of it); `reads`: an artefact of
    the stage before.
    """

    run: Callable[[Path], object]
    kept: tuple[str, ...] = ("**/*",)
    reads: Path | None = None

    def contents(self, out: Path) -> dict[str, bytes]:
        found = {path for pattern in self.kept for path in out.glob(pattern)}
        files = [path for path in sorted(found) if path.is_file() and path.name not in VARYING]
        return {str(path.relative_to(out)): _lasting(path) for path in files}


def _lasting(path: Path) -> bytes:
    if path.name != "results.json":
        return path.read_bytes()
    return json.dumps(json.loads(path.read_bytes())["rows"]).encode()


def stages_of(work: Path) -> dict[str, Stage]:
    """What they read is written into `work` first."""
    from colmrl.configure import load_config
    from colmrl.data.sample import write_sample
    from colmrl.encoding import encode
    from colmrl.evaluation.run import judge, write_results
    from colmrl.loop import loop
    from colmrl.mining import mine
    from colmrl.models.tiny import write_tiny_model
    from colmrl.search.building import build_indexes
    from colmrl.training.run import train
    from colmrl.view import View

    data = write_sample(work / "data", 0, train_families=8, test_families=3)
    model = write_tiny_model("internvl", work / "model")

    def settings(out: Path, *more: str) -> Any:
        base = [f"output={out}", f"model.backbone={model}", f"data.path={data}/train", "device=cpu", "threads=1"]
        base += ["train.batch_size=8", "encode.shard_size=8", "single.dims=[128,32]", "multi.dims=[64,16]"]
        base += ["train.learning_rate=1e-3", "train.save_steps=2", "train.max_steps=8", "mine.filters=[]", "mine.k=8"]
        return load_config(None, [*base, *more, *MORE])

    checkpoint = train(settings(work / "made", "train.max_steps=2"))
    store = encode(settings(work), checkpoint, data / "train", work / "store")
    views = [View.parse("multi@64"), View.parse("single@32")]
    short = ["loop.rounds=2", "train.max_steps=3", "train.save_steps=1", "train.negatives=1", "mine.negatives=2"]
    short += [f"data.eval_path={data}/test", "eval.views=[single@128,multi@16]", "data.eval_split=test"]
    kept = ("round-*/checkpoint/**/*", "round-*/*store/*/*.npy", "round-*/triples.jsonl", "results.json")
    return {
        "train": Stage(lambda out: train(settings(out)), ("checkpoint/**/*",)),
        "encode": Stage(lambda out: encode(settings(work), checkpoint, data / "train", out), reads=checkpoint),
        "index": Stage(lambda out: build_indexes(settings(work, "index.type=ivf"), store, views, out), reads=store),
        "mine": Stage(
            lambda out: mine(settings(work, "mine.view=multi@64"), store, out / "triples.jsonl"), reads=store
        ),
        "eval": Stage(
            lambda out: write_results(out / "results.json", judge(settings(work, "data.eval_split=train"), store), 0),
            reads=store,
        ),
        "loop": Stage(lambda out: loop(settings(out, *short)), kept),
    }
