"""`eval.py mteb --submit DIR`: what a submission to mteb (2.26) needs, checked by mteb's own loader.

DIR/results/<model>/<revision>/<task>.json   with model_meta.json and run_settings.jsonl, as the results repository
                                             (github.com/embeddings-benchmark/results) keeps them
DIR/colmrl_models.py                         a ModelMeta a view and stage, for mteb/models/model_implementations
"""

import enum
import logging
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mteb.cache import ResultCache
from mteb.models.model_meta import ModelMeta

from colmrl.errors import InputError
from colmrl.evaluation.mteb_run import Result
from colmrl.evaluation.mteb_tasks import LocalRetrieval
from colmrl.files import write_text

log = logging.getLogger(__name__)
MODELS = "colmrl_models.py"
_BESIDE = ("model_meta.json", "run_settings.jsonl")
_OF_ITS_MAKER = ("license", "languages", "training_datasets", "release_date", "reference")
_HEAD = '''"""What `eval.py mteb --submit` measured. `checkpoint` is a folder here: name where it is published."""

from mteb.models.model_meta import ModelMeta

from colmrl.evaluation.mteb_meta import load_model

models = [
'''


def write_submission(results: Sequence[Result], judged: Path, folder: Path) -> None:
    """Of `judged`, the folder that these results were kept in, what is of them; and check that mteb reads it."""
    metas = {result.meta.name: result.meta for result in results}
    kept, new = ResultCache(judged), ResultCache(folder)
    for result in results:
        source = kept.get_task_result_path(result.task.metadata.name, result.meta)
        target = new.get_task_result_path(result.task.metadata.name, result.meta)
        target.parent.mkdir(parents=True, exist_ok=True)
        for name in (source.name, *_BESIDE):
            shutil.copyfile(source.with_name(name), target.with_name(name))
    write_text(folder / MODELS, _HEAD + "".join(map(_written, metas.values())) + "]\n")
    check_submission(results, folder)
    local = sorted({result.task.metadata.name for result in results if isinstance(result.task, LocalRetrieval)})
    if local:
        log.info("%s: %s: no tasks of mteb's: for your own comparisons", folder, ", ".join(local))
    meta = results[0].meta
    unknown = [f"mteb.{name}" for name in _OF_ITS_MAKER if getattr(meta, name) is None]
    if unknown:
        log.info("%s: not said of the model: %s", folder, ", ".join(unknown))


def check_submission(results: Sequence[Result], folder: Path) -> None:
    """Raise an InputError unless mteb reads every result, with its model, and makes its table of the same scores."""
    metas = {result.meta.name: result.meta for result in results}
    tasks = {result.task.metadata.name: result.task for result in results}
    loaded = ResultCache(folder).load_results(
        models=list(metas.values()), tasks=list(tasks.values()), include_remote=False, validate_and_filter=True
    )
    found = {(model.model_name, one.task_name): one for model in loaded for one in model.task_results}
    table = loaded.to_dataframe(include_model_revision=False)
    for result in results:
        name, task = str(result.meta.name), result.task.metadata.name
        score = float(result.scores.get_score())
        if (name, task) not in found or not found[name, task].scores:
            raise InputError(f"{folder}: mteb does not read {name} on {task} from it: give another, empty --submit")
        (shown,) = table.loc[table["task_name"] == task, name]
        if not math.isclose(float(shown), score, abs_tol=1e-5):
            raise InputError(f"{folder}: mteb reads {shown} for {name} on {task}, not {score}: remove it, submit again")


def _written(meta: ModelMeta) -> str:
    """As Python source."""
    fields = [f"        {name}={_source(getattr(meta, name))},\n" for name in type(meta).model_fields]
    return "    ModelMeta(\n" + "".join(fields) + "    ),\n"


def _source(value: Any) -> str:
    if callable(value):
        return value.__name__
    return repr(value.value if isinstance(value, enum.Enum) else value)
