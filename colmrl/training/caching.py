"""Before step one: what frozen parts give for all that training will show, computed once and kept on disk.

With the vision tower frozen: its projected features, and Qwen3-VL's deepstack features, of every distinct picture. With
the whole backbone frozen: the last hidden states of every distinct record, so that only the heads run. Entries have the
dtype that the model computes in, bit by bit, and depend on weights, processor, precision and versions by their folder's
name: a change of any of these finds nothing, and computes anew.
"""

import hashlib
import json
import logging
import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from colmrl import processes
from colmrl.config import Config
from colmrl.errors import InputError
from colmrl.models.cached_inputs import TILES, CachedInputs, CachedPictures, CachedStates
from colmrl.models.feature_cache import Entry, FeatureCache
from colmrl.models.inputs import ModelInput, Told, tokens
from colmrl.models.positions import visual
from colmrl.models.retriever import Retriever, fingerprint
from colmrl.models.weights import hash_tensors
from colmrl.processes import data_worker
from colmrl.progress import bar
from colmrl.runtime import mixed_precision
from colmrl.training.batches import ExampleDataset
from colmrl.training.chunks import chunks_of

log = logging.getLogger(__name__)

_GROUP = 64  # records that are read ahead and then divided into chunks; the first ones tell how large all will be
_PACKAGES = ("torch", "transformers", "tokenizers", "pillow")  # others may give other pixels, tokens or roundings


def prepare_cache(config: Config, model: Retriever, dataset: ExampleDataset, size: int | None = None) -> CachedInputs:
    """Compute and keep what is missing; returns what builds model inputs from it. `model` on the device that computes,
    `size`: records that it sees at a time (None: a batch's queries).

    Several processes share the work. Raises InputError where what would be kept is trained, or the disk has no room.
    """
    check_frozen(config, model)
    folder = str(config.train.tower_cache)
    whole = config.model.tuning == "frozen"
    about = _about(config, model, whole)
    cache = FeatureCache(folder, hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32], about)
    inputs = (CachedStates if whole else CachedPictures)(model.inputs, cache)
    work = {key: one for record in shown(model, dataset) for key, one in inputs.work(record)}
    missing = [item for item in work.items() if item[0] not in cache]
    random.Random(0).shuffle(missing)  # the first ones are like the others
    mine = missing[processes.rank() :: processes.processes()]
    filling = _fill(config, model, inputs, mine, size or config.train.batch_size)
    if missing:
        processes.on_first(lambda: _check_room(cache, inputs.what, next(filling), len(missing), len(work)))
        with bar(f"caching {inputs.what}s") as progress:
            task = progress.add_task("", total=len(mine))
            for sizes in filling:
                progress.advance(task, len(sizes))
        cache.flush()
        processes.wait()
        cache.refresh()
    absent = sum(key not in cache for key in work)
    if absent:
        raise InputError(f"train.tower_cache: {folder}: lacks {absent} entries: all processes need to see one folder")
    log.info("tower cache %s: all of %d %ss", cache.folder, len(work), inputs.what)
    return inputs


def check_frozen(config: Config, model: Retriever) -> None:
    """Raise an InputError unless what is to be cached is there, and never trained."""
    place = f"train.tower_cache: {config.train.tower_cache}"
    if model.inputs.scored.changes and config.model.tuning == "frozen":
        raise InputError(
            f"{place}: hidden states are not kept for a model with query expansion, a skiplist or vectors of pictures "
            "only: leave it null"
        )
    if config.model.tuning == "frozen":
        return
    if not model.backbone.sees_pictures:
        raise InputError(
            f"{place}: {model.backbone.family} has no vision tower: leave it null, or set model.tuning=frozen"
        )
    if any(p.requires_grad for tower in model.backbone.vision_modules for p in tower.parameters()):
        raise InputError(
            f"{place}: the vision tower is trained, so what it gives changes: leave it null, or set model.tuning=lora "
            "with lora.vision=false and lora.targets null"
        )


def shown(model: Retriever, dataset: ExampleDataset) -> Iterator[Told]:
    """Every record that training may show, once a data set."""
    for part in dataset.examples.parts:
        queries: dict[str, None] = {}
        documents: dict[str, None] = {}
        for triple in part.triples():
            queries[triple.query_id] = None
            documents |= dict.fromkeys([triple.pos_id, *(triple.neg_ids if dataset.negatives else ())])
        yield from (model.inputs.told_query(part.queries.named(name)) for name in queries)
        yield from (model.inputs.told_document(part.documents.named(name)) for name in documents)


def _about(config: Config, model: Retriever, whole: bool) -> dict[str, Any]:
    """All that entries depend on, other than what they are of."""
    backbone = model.backbone
    settings = backbone.model.config.to_dict()  # attention too
    settings.pop("_name_or_path", None)
    with tempfile.TemporaryDirectory() as folder:
        (model.inputs.processor if whole else model.inputs.processor.image_processor).save_pretrained(folder)
        processor = fingerprint(folder)
    return {
        "of": "hidden states, placed" if whole else "image features, placed",
        "family": backbone.family,
        "weights": hash_tensors(_values([backbone.model] if whole else backbone.vision_modules)),
        "settings": hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:32],
        "processor": processor,
        "resize": model.inputs.config.resize,
        "dtype": config.model.dtype,
        "precision": config.train.precision,
        "quantization": config.model.quantization,
        "kernel": config.attention_kernel,
        "device": model.device.type,
        "versions": {name: metadata.version(name) for name in _PACKAGES},
    }


def _values(modules: Iterable[nn.Module]) -> Iterator[tuple[str, Tensor]]:
    for module in modules:  # a quantised layer's state holds more than tensors
        yield from ((name, value) for name, value in module.state_dict().items() if isinstance(value, Tensor))


def _check_room(cache: FeatureCache, what: str, sizes: Sequence[int], missing: int, work: int) -> None:
    """Say what all will take, by the first ones' bytes, and refuse where the disk has less."""
    each, there = sum(sizes) / len(sizes), cache.folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    needs = f"{missing} of {work} {what}s × {each / 1e6:.3f} MB = {missing * each / 1e9:.3f} GB"
    log.info("tower cache %s: to compute: %s, of %.1f GB free", cache.folder, needs, free / 1e9)
    if missing * each > free:
        raise InputError(
            f"train.tower_cache: {cache.folder}: needs {needs}, but {free / 1e9:.3f} GB are free: choose another disk, "
            "lower model.max_pixels, set model.dtype=bf16, or leave it null"
        )


def _fill(
    config: Config, model: Retriever, inputs: CachedInputs, missing: Sequence[tuple[str, Told]], size: int
) -> Iterator[list[int]]:
    """Adds the missing entries, and gives the bytes of each that it added."""
    loader = DataLoader(
        missing,  # pyright: ignore[reportArgumentType]
        batch_size=_GROUP,
        collate_fn=_Build(model),
        num_workers=config.train.workers,
        worker_init_fn=data_worker,
        generator=torch.Generator(),  # or the loader would draw from training's random numbers
    )
    if missing:
        _say_dropout(config, model, missing[0][1])
    for keys, records in loader:
        sizes = []
        for chunk in chunks_of([tokens(record) for record in records], size, config.train.mini_batch_tokens):
            computed = compute(config, model, [records[place] for place in chunk])
            sizes += [inputs.cache.add(keys[place], entry) for place, entry in zip(chunk, computed, strict=True)]
        yield sizes


class _Build:
    """Items of work → their keys and model inputs; ahead of the model, in the loader's processes."""

    def __init__(self, model: Retriever):
        self.inputs = model.inputs

    def __call__(self, items: Sequence[tuple[str, Told]]) -> tuple[list[str], list[ModelInput]]:
        return [key for key, _ in items], self.inputs.each([record for _, record in items])


@torch.no_grad()
def compute(config: Config, model: Retriever, records: Sequence[ModelInput], train: bool = False) -> list[Entry]:
    """The entry of each record, as one batch, in the precision of training; `train`: with dropout, where there is."""
    backbone = model.backbone
    batch = {name: tensor.to(model.device) for name, tensor in model.inputs.join(records).items()}
    was_training = model.training
    try:
        model.train(train)
        with mixed_precision(model.device, config.train.precision):
            if config.model.tuning == "frozen":
                hidden, mask = backbone(batch)
                of_tokens = {"hidden": hidden} | {name: batch[name] for name in ("positions",) if name in batch}
                return [{name: rows[i][mask[i]] for name, rows in of_tokens.items()} for i in range(len(records))]
            features = backbone.image_features(batch)
    finally:
        model.train(was_training)
    counts = backbone.image_tokens(batch).tolist()
    parts = {name: rows.split(counts) for name, rows in features.items()}
    kept = [name for name in records[0] if name.startswith("image_")]  # the grid, for Qwen-VL
    return [
        {name: rows[place] for name, rows in parts.items()}
        | {name: record[name] for name in kept}
        | {TILES: torch.tensor([len(record["pixel_values"])]), "positions": visual(record["positions"][0])}
        for place, record in enumerate(records)
    ]


def _say_dropout(config: Config, model: Retriever, record: Told) -> None:
    """Training mode makes a frozen part's dropout draw anew at every step, which a cache cannot."""
    with torch.random.fork_rng():
        drawn = [compute(config, model, model.inputs.each([record]), train=True)[0] for _ in range(2)]
    if any(not torch.equal(value, drawn[1][name]) for name, value in drawn[0].items()):
        log.warning("tower cache: the frozen part has dropout: cached, and so left out; without a cache it is drawn")
