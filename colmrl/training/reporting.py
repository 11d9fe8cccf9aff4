"""TensorBoard and Weights & Biases: every number of metrics.jsonl, into the run folder and where `wandb login` says."""

import importlib.util
import os
import uuid
from pathlib import Path

from transformers import TrainerCallback

from colmrl.config import Config
from colmrl.configure import to_dict
from colmrl.errors import InputError
from colmrl.files import write_text


def check_reporters(config: Config) -> None:
    """Raise an InputError where a package that `train.report_to` needs is not installed."""
    for name in config.train.report_to:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"train.report_to: {name}: is not installed: pip install {name}")


def reporters(config: Config, output: Path, step: int) -> list[TrainerCallback]:
    """The library's callbacks, writing below `output`; a run that goes on after `step` goes on in the same place."""
    return [_tensorboard(output, step) if name == "tensorboard" else _wandb(config, output) for name in _unique(config)]


def _unique(config: Config) -> list[str]:
    return list(dict.fromkeys(config.train.report_to))


def _tensorboard(output: Path, step: int) -> TrainerCallback:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    return TensorBoardCallback(SummaryWriter(str(output / "tensorboard"), purge_step=step + 1))


def _wandb(config: Config, output: Path) -> TrainerCallback:
    """WANDB_MODE=offline writes to the run folder alone; WANDB_PROJECT names the project."""
    import wandb
    from transformers.integrations.integration_utils import WandbCallback
    from wandb.errors import UsageError

    name = output / "wandb-run.txt"
    if not name.is_file():
        write_text(name, uuid.uuid4().hex[:8])
    project = os.environ.get("WANDB_PROJECT", "colmrl")
    try:
        wandb.init(
            project=project,
            name=output.name,
            dir=str(output),
            id=name.read_text(encoding="utf-8"),
            resume="allow",
            config=to_dict(config),
        )
    except UsageError as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"train.report_to: wandb: {reason}: `wandb login`, or set WANDB_MODE=offline") from None
    return WandbCallback()


def close_reporters(config: Config) -> None:
    """Have what was reported written out."""
    if "wandb" in config.train.report_to:
        import wandb

        wandb.finish()
