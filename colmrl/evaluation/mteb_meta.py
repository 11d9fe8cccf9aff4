"""What mteb (2.26) knows of a model: one `ModelMeta` a view and stage, each with a name of its own, and its loader.

The name holds the view, the index, the reranker and every setting that numbers depend on; the revision is the hash of
the weights (a reranker's too): mteb keeps results under both, and would give those of one stage for another's.
"""

import difflib
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path

from mteb.models.model_meta import ModelMeta
from pydantic import ValidationError
from safetensors import safe_open

from colmrl.config import Config, ModelConfig
from colmrl.configure import load_config, replace
from colmrl.errors import InputError
from colmrl.evaluation.mteb_encoder import ViewEncoder
from colmrl.evaluation.mteb_search import StoreSearch
from colmrl.evaluation.mteb_stores import TaskStores
from colmrl.evaluation.mteb_ways import Way, parse_way, settings_of
from colmrl.models.weights import weight_files
from colmrl.reranking.description import is_checkpoint, read_description
from colmrl.reranking.opening import weights_of
from colmrl.search.index_files import read_facts

Judged = StoreSearch | ViewEncoder
_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "8bit": 1.0, "4bit": 0.5}  # a weight
_DTYPES = {"fp16": "float16", "int8": "int8", "binary": "binary"}  # mteb's names of what vectors are rounded to
_SAID = ("license", "languages", "training_datasets", "release_date")  # by its maker alone, if anybody
_SAID += ("open_weights", "public_training_code", "public_training_data")
_EMBEDDINGS = re.compile(r"(embed_tokens|word_embeddings)\.weight")


def model_meta(stores: TaskStores, way: Way, as_encoder: bool = False, given: Sequence[str] = ()) -> ModelMeta:
    """`given`: settings of use that hold in place of the reranker's own."""
    config, description, view = stores.config, stores.description, way.plan.view
    trained = description.trained
    dims = trained.single_dims if view.head == "single" else trained.multi_dims
    plain = way.is_plain and way.reranker is None
    total, embedding, size = _parameters(stores.checkpoint, description.model)
    if way.reranker is not None and is_checkpoint(way.reranker):
        more = _parameters(Path(way.reranker), read_description(Path(way.reranker)).model)
        total, embedding, size = total + more[0], embedding + more[1], size + more[2]
    local = Path(description.model.backbone).is_absolute()
    settings = settings_of(config, way, given)
    loader = {
        "checkpoint": str(stores.checkpoint.resolve()),
        "plan": str(way.plan),
        "index": str(way.index.resolve()) if isinstance(way.index, Path) else way.index,
        "reranker": way.reranker and str(Path(way.reranker).resolve()),
        "as_encoder": as_encoder,
        "settings": [f"{key}={value}" for key, value in settings.items()],
    }
    shape = ["dense" if view.head == "single" else "late-interaction"]
    facts = {
        "loader": load_model,
        "loader_kwargs": loader,
        "name": f"{base_name(config, stores.checkpoint)}-{_suffix(way, as_encoder, settings)}",
        "revision": _revision(stores.stamp, way),
        "n_parameters": total,
        "n_embedding_parameters": embedding or None,
        "memory_usage_mb": round(size / 2**20, 1),
        "max_tokens": description.model.max_document_tokens,
        "embed_dim": sorted((dim for dim in dims if dim <= view.dim), reverse=True) if plain else [view.dim],
        "similarity_fn_name": "cosine" if view.head == "single" else "MaxSim",
        "model_type": [*shape, *(["cross-encoder"] if way.reranker else [])],
        "output_dtypes": _DTYPES.get(view.precision),
        "modalities": ["text", "image"] if stores.sees_pictures else ["text"],
        "use_instructions": {description.model.query_prompt, description.model.document_prompt} != {"{text}"},
        "framework": ["PyTorch", "Transformers", "safetensors"],
        "adapted_from": None if local or description.model.tuning == "full" else description.model.backbone,
    }
    said = {key: str(value) if isinstance(value, date) else value for key, value in config.mteb.items()}
    measured = next((key for key in said if key in facts and key != "name"), None)
    if measured is not None:
        raise InputError(f"mteb.{measured}: is measured, not said: leave it out")
    unknown = next((key for key in said if key not in ModelMeta.model_fields), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, ModelMeta.model_fields, 1)
        remedy = f"did you mean {near[0]}?" if near else "leave it out"
        raise InputError(f"mteb.{unknown}: ModelMeta has no such field: {remedy}")
    try:
        return ModelMeta.model_validate({**dict.fromkeys(_SAID), **said, **facts})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"mteb.{first['loc'][0]}: {first['msg']}: see mteb's ModelMeta for what it may be") from None


def load_model(
    name: str,
    revision: str | None = None,
    *,
    checkpoint: str,
    plan: str,
    index: str | None = None,
    reranker: str | None = None,
    as_encoder: bool = False,
    settings: Sequence[str] = (),
    folder: str | None = None,
    device: str | None = None,
    embed_dim: int | None = None,
) -> Judged:
    """What `ModelMeta.load_model` calls. `folder`: where stores are kept; else where eval.py mteb keeps them."""
    config = load_config(None, settings)
    config = config if device is None else replace(config, device=device.partition(":")[0])
    way = parse_way(plan, index, reranker)
    if embed_dim is not None:
        way = way.at_dim(embed_dim)
    stores = TaskStores(config, checkpoint, folder or default_folder(checkpoint) / "stores")
    if revision != (found := _revision(stores.stamp, way)):
        raise InputError(f"{checkpoint}: is revision {found}, not {revision} ({name}): give the weights of that")
    given = [setting.partition("=")[0] for setting in settings]
    return open_model(stores, way, as_encoder, given)


def open_model(stores: TaskStores, way: Way, as_encoder: bool = False, given: Sequence[str] = ()) -> Judged:
    meta = model_meta(stores, way, as_encoder, given)
    if not as_encoder:
        return StoreSearch(stores, way, meta, given)
    if not way.is_plain or way.reranker is not None:
        raise InputError(f"--encoder: {way}: mteb searches itself then, at one view: leave --encoder out")
    return ViewEncoder(stores, way.plan.view, meta)


def default_folder(checkpoint: str | Path) -> Path:
    return Path(checkpoint).resolve().parent / "mteb"


def base_name(config: Config, checkpoint: Path) -> str:
    """`mteb.name`, or colmrl/ and what the run is called: OUTPUT of OUTPUT/checkpoint."""
    if "name" in config.mteb:
        return str(config.mteb["name"])
    place = checkpoint.resolve()
    place = place.parent if place.name == "checkpoint" else place
    run = f"{place.parent.name}-{place.name}" if place.name.startswith("round-") else place.name
    return f"colmrl/{re.sub(r'[^0-9A-Za-z_.-]', '-', run)}"


def _suffix(way: Way, as_encoder: bool, settings: Mapping[str, str]) -> str:
    """single-64-top1000--multi-128-hnsw-probes8-rerank-NAME-top_k20: of a file's name."""
    plan = str(way.plan).translate({ord("@"): "-", ord(":"): "-", ord("/"): "-top", ord("+"): "--"})
    index = way.index if way.index is None else str(way.index if isinstance(way.index, str) else _built(way.index))
    reranker = way.reranker and f"rerank-{base_name(Config(), Path(way.reranker)).rpartition('/')[2]}"
    said = [f"{key.rpartition('.')[2]}{value}" for key, value in settings.items()]
    parts = [plan, index, reranker, *said, "encoder" if as_encoder else None]
    return re.sub(r"[^0-9A-Za-z_.-]", "", "-".join(part for part in parts if part))


def _built(index: Path) -> str:
    """Type and content of an index that was built before."""
    manifest, _ = read_facts(index)
    return f"{manifest.type}-{manifest.hash[:8]}-probes{manifest.probes}-candidates{manifest.candidates}"


def _revision(stamp: str, way: Way) -> str:
    if way.reranker is None:
        return stamp
    return hashlib.sha256(f"{stamp} {weights_of(way.reranker)}".encode()).hexdigest()[:32]


def _parameters(checkpoint: Path, model: ModelConfig) -> tuple[int, int, float]:
    """Weights, those of them that embed tokens, and the bytes that they take when loaded; from the files' headers."""
    base = weight_files(str(checkpoint / "backbone") if model.tuning == "full" else model.backbone)
    of_base = {path.resolve() for path in base}  # another library keeps them beside its heads
    own = sorted(path for path in checkpoint.rglob("*.safetensors") if path.resolve() not in of_base)
    shapes = {name: math.prod(shape) for path in base for name, shape in _shapes(path)}
    heads = sum(math.prod(shape) for path in own for _, shape in _shapes(path))
    embedding = sum(size for name, size in shapes.items() if _EMBEDDINGS.search(name))
    total = sum(shapes.values())
    return total + heads, embedding, total * _BYTES[model.quantization or model.dtype] + heads * _BYTES["fp32"]


def _shapes(path: Path) -> Iterator[tuple[str, list[int]]]:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            yield name, file.get_slice(name).get_shape()
