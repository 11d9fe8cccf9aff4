"""The folder of a training run: what is run stands in it before step one, and resume points as it goes."""

import json
import shutil
from pathlib import Path

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import changed_keys, save_config
from colmrl.errors import InputError
from colmrl.files import write_text
from colmrl.inputs import check_inputs, write_inputs
from colmrl.models.weights import not_whole
from colmrl.processes import on_first
from colmrl.training.guards import check_identity
from colmrl.training.reporting import check_reporters

# Of a resume point, by their names in one process, with FSDP and with DeepSpeed: the trainer goes on without them.
_PARTS = (("optimizer.pt", "optimizer.bin", "optimizer_*", "global_step*"), ("rng_state.pth", "rng_state_*.pth"))

# What may differ when an interrupted run is gone on with: none of it changes the weights.
_FREE = ("device", "encode.", "mine.", "eval.", "frontier.", "loop.", "train.workers", "train.log_steps")
_FREE += ("train.save_steps", "train.report_to", "train.profile")
_FREE_UNJUDGED = ("train.eval_steps", "data.eval_path", "data.eval_split")  # where nothing is kept for being best


def enter(config: Config) -> Config:
    """An InputError where the run's folder cannot be trained into. Returns the settings with generated inputs, if any,
    written and named by path."""
    output = Path(config.output)
    checkpoint = output / "checkpoint"
    if checkpoint.exists():
        raise InputError(f"{checkpoint}: exists already: choose another --output, or remove it")
    check_inputs(config)
    check_reporters(config)
    config = on_first(lambda: write_inputs(config))
    on_first(lambda: check_same_run(config, output))
    return config


def check_same_run(config: Config, output: Path) -> None:
    """An interrupted run may only be gone on with as it was begun; one that has no resume point is begun anew."""
    if not resume_point(output / "trainer"):
        return
    free = _FREE if config.train.best_metric else _FREE + _FREE_UNJUDGED
    changed = [key for key in changed_keys(output / "config.yaml", config) if not key.startswith(free)]
    if changed:
        raise InputError(
            f"{output}: an unfinished run with other {', '.join(changed)}: choose another --output, or remove it"
        )


def resume_point(folder: Path) -> str | None:
    """The newest resume point; one that was half written (its state comes last) is removed. An InputError where a
    later damage is seen: nothing is removed then.
    """
    points = sorted(folder.glob("checkpoint-*"), key=lambda point: int(point.name.rpartition("-")[2]))
    for point in reversed(points):
        try:
            json.loads((point / "trainer_state.json").read_bytes())
        except (OSError, ValueError):
            shutil.rmtree(point)
            continue
        broken = not_whole(point) or next((point / names[0] for names in _PARTS if not _any_of(point, names)), None)
        if broken is not None:
            raise InputError(
                f"{broken}: not whole: put it back, or remove {point}: the run then goes on from an earlier resume "
                "point, where there is one, or begins anew"
            )
        return str(point)
    return None


def _any_of(point: Path, names: tuple[str, ...]) -> bool:
    return any(True for name in names for _ in point.glob(name))


def start_folder(config: Config, output: Path, now: dict[str, object]) -> None:
    """Write down what is run, where and on what (`now`: `guards.identity`), before step one."""
    if resume_point(output / "trainer"):
        check_identity(output / "environment.json", now)
    save_config(config, output / "config.yaml")
    environment = provenance.environment() | {"seed": config.seed} | now
    write_text(output / "environment.json", json.dumps(environment, indent=2))
