"""The stages as functions. Settings are the command line's: "train.epochs=2"."""

from collections.abc import Sequence
from pathlib import Path

from colmrl.api.stores import Store
from colmrl.configure import load_config
from colmrl.encoding import encode as run_encode
from colmrl.view import View, parse_views


def train(recipe: str | Path | None, *settings: str, output: str | Path | None = None) -> Path:
    """Train as `train.py --config RECIPE` does; returns the checkpoint's path.

    Args:
        recipe: a recipe's name, or a YAML file; None: settings alone.
        settings: "data.path=DIR", "train.epochs=2", …
        output: the run folder; None: the recipe's.
    """
    from colmrl.training.run import train as run_train  # peft and data sets: seconds that encoding does without

    named = [f"output={output}"] if output is not None else []
    return run_train(load_config(recipe, [*named, *settings]))


def encode(
    checkpoint: str | Path,
    data: str | Path,
    out: str | Path | None = None,
    views: str | Sequence[str | View] = (),
    settings: Sequence[str] = (),
) -> Store:
    """Encode a data folder into a store as `colmrl encode` does, and open it. Goes on where it was interrupted.

    Args:
        checkpoint: the folder that training wrote.
        data: a folder, a file or a data set of the hub (docs/data.md).
        out: the store; None: beside the checkpoint.
        views: what to keep, e.g. "single@64,multi@64x16:int8"; none: both heads in full.
        settings: "encode.batch_size=8", "encode.ray=auto", …
    """
    chosen = parse_views(views if isinstance(views, str) else map(str, views))
    named = [f"encode.views=[{','.join(map(str, chosen))}]"] if chosen else []
    config = load_config(None, [*named, *settings])
    folder = run_encode(config, checkpoint, data, out or Path(checkpoint).parent / "store")
    return Store(folder, checkpoint, settings=settings)
