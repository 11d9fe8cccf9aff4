"""The whole configuration: frozen dataclasses ← YAML ← `section.key=value`; a typo names the nearest key.

Values are checked and converted by pydantic (so `1e-4`, which YAML reads as text, is a number where a number
is due). `${output}` inside any text stands for the run folder.
"""

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from colmrl.errors import InputError

_STRICT = ConfigDict(extra="forbid")
Positive = Annotated[int, Field(gt=0)]
Dims = tuple[Positive, ...]
RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True, config=_STRICT)
class ModelConfig:
    """The backbone, how it is tuned, and how a record becomes its input."""

    backbone: str = ""  # a folder or a hub id
    tuning: Literal["full", "lora", "frozen"] = "full"
    dtype: Literal["fp32", "bf16"] = "fp32"  # of the backbone's weights; heads and LoRA stay fp32
    padding_side: Literal["left", "right"] | None = None  # null: the tokenizer's own
    query_prompt: str = "{text}"
    document_prompt: str = "{text}"
    document_fields: tuple[Literal["text", "image"], ...] = ("text", "image")  # what of a document the model sees
    max_query_tokens: Positive = 512
    max_document_tokens: Positive = 512  # of text; pictures are bounded by max_pixels
    max_pixels: Positive | None = None  # null: the processor's own


@dataclass(frozen=True, config=_STRICT)
class LoraConfig:
    """LoRA (arXiv:2106.09685) on the language model; `targets` is a regular expression, null for the family's."""

    r: Positive = 16
    alpha: Positive = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: str | None = None


@dataclass(frozen=True, config=_STRICT)
class SingleConfig:
    """The single-vector head: pooled hidden states, an optional projection, nested dims (none: no such head)."""

    dims: Dims = (128, 64, 32, 16)
    pooling: Literal["mean", "last", "cls"] = "mean"
    projection: Positive | None = None  # null: the backbone's own width, unprojected
    temperature: Annotated[float, Field(gt=0)] = 0.05


@dataclass(frozen=True, config=_STRICT)
class MultiConfig:
    """The multi-vector head: a projection of every token, nested dims (none: no such head)."""

    dims: Dims = (128, 64, 32, 16)
    temperature: Annotated[float, Field(gt=0)] = 0.05


@dataclass(frozen=True, config=_STRICT)
class LossConfig:
    """InfoNCE over all dims of both heads."""

    symmetric: bool = True
    false_negative_margin: float | None = None  # mask what scores above the positive by this; null: mask nothing


@dataclass(frozen=True, config=_STRICT)
class DataConfig:
    """Where records are: folders in the BEIR layout, or triples."""

    path: str = ""
    eval_path: str | None = None  # null: path
    train_split: str = "train"
    eval_split: str = "test"
    triples: str | None = None  # JSONL with hard negatives; null: pairs from the qrels
    root: str | None = None  # where the triples' relative paths start; null: data.path
    strict: bool = True  # a bad line is an error; false: skipped, counted and reported


@dataclass(frozen=True, config=_STRICT)
class TrainConfig:
    """One training run."""

    init_from: str | None = None  # a colmrl checkpoint to go on from; null: model.backbone
    epochs: Annotated[float, Field(ge=0)] = 1
    max_steps: int = -1  # wins over epochs when ≥ 0
    batch_size: Positive = 32
    negatives: Annotated[int, Field(ge=0)] = 0  # explicit hard negatives a query, from data.triples
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    workers: Annotated[int, Field(ge=0)] = 0  # processes that read and prepare pictures ahead of the model
    save_steps: Positive = 500
    log_steps: Positive = 10


@dataclass(frozen=True, config=_STRICT)
class EncodeConfig:
    """Records → store."""

    views: tuple[str, ...] = ()  # what to keep; none: every head in full
    batch_size: Positive = 32
    shard_size: Positive = 4096  # records a shard
    dtype: Literal["fp32", "fp16"] = "fp32"
    workers: Annotated[int, Field(ge=0)] = 0  # processes that read and prepare pictures ahead of the model


@dataclass(frozen=True, config=_STRICT)
class MineConfig:
    """Search with the model itself, keep what is hard and not true."""

    view: str | None = None  # null: the largest view that the store keeps
    k: Positive = 50  # how deep to search
    negatives: Positive = 4  # at most, a query
    relative_margin: Annotated[float, Field(ge=0, lt=1)] = 0.05  # keep at ≤ (1 - margin) × the positive's score
    sampling: Literal["top", "random"] = "top"
    gpu: bool = True  # where there is one


@dataclass(frozen=True, config=_STRICT)
class EvalConfig:
    """What is judged."""

    views: tuple[str, ...] = ()  # none: every trained dim of both heads
    k: Positive = 100  # ranks a query
    gpu: bool = True  # where there is one


@dataclass(frozen=True, config=_STRICT)
class LoopConfig:
    """Rounds of train → encode → mine; `sample` and `tiny_model` make their own data and backbone first."""

    rounds: Positive = 2
    sample: bool = False  # write the sample data set under ${output}/data
    tiny_model: str | None = None  # write a tiny random model of this family at ${output}/model
    round_learning_rates: tuple[float, ...] = ()  # one a round; none: train.learning_rate for all


@dataclass(frozen=True, config=_STRICT)
class Config:
    seed: int = 0
    output: str = "outputs/run"
    device: str | None = None  # null: cuda where there is one, else cpu
    model: ModelConfig = ModelConfig()
    lora: LoraConfig = LoraConfig()
    single: SingleConfig = SingleConfig()
    multi: MultiConfig = MultiConfig()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    encode: EncodeConfig = EncodeConfig()
    mine: MineConfig = MineConfig()
    eval: EvalConfig = EvalConfig()
    loop: LoopConfig = LoopConfig()


_ADAPTER = TypeAdapter(Config)


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration from a YAML file (or a recipe's bare name; None: all defaults) and `section.key=value`.

    Raises InputError naming file, line, key, value and remedy.
    """
    source = _find_recipe(path) if path is not None else None
    tree = _read_yaml(source) if source else {}
    origins: dict[str, str] = {}  # dotted key → where it was said, for error messages
    if source:
        origins = _yaml_lines(source)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise InputError(f"override {override!r}: not of the form section.key=value: write e.g. train.epochs=2")
        try:
            value = yaml.safe_load(text) if text else None
        except yaml.YAMLError as error:
            raise InputError(f"override {override!r}: value does not parse: quote it ({error})") from None
        _assign(tree, key.split("."), value, override)
        origins[key] = f"override {override!r}"
    try:
        config = _ADAPTER.validate_python(_interpolate(tree, str(tree.get("output") or Config.output)))
    except ValidationError as error:
        raise _explain(error, source, origins) from None
    _check_heads(config)
    return config


def save_config(config: Config, path: str | Path) -> None:
    Path(path).write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")


def to_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain JSON-like values."""
    return _ADAPTER.dump_python(config, mode="json")


def flat(tree: dict[str, Any]) -> dict[str, Any]:
    """Dotted key → value, of a configuration as `to_dict` gives it."""
    pairs: dict[str, Any] = {}
    for name, value in tree.items():
        pairs |= {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
    return pairs


def all_keys() -> list[str]:
    """Every dotted key there is."""
    return list(flat(to_dict(Config())))


def replace(config: Config, **sections: Any) -> Config:
    """A copy with other values: `replace(config, train={"epochs": 2}, output="…")`."""
    changed = {
        name: dataclasses.replace(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in sections.items()
    }
    return dataclasses.replace(config, **changed)


def _find_recipe(path: str | Path) -> Path:
    for candidate in (Path(path), RECIPES / f"{path}.yaml"):
        if candidate.is_file():
            return candidate
    names = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
    raise InputError(f"{path}: no such config: give a YAML file or one of the recipes: {names}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}:1: a {type(tree).__name__}, not sections with keys: see {RECIPES}/demo.yaml")
    return tree


def _yaml_lines(path: Path) -> dict[str, str]:
    """Dotted key → `file:line`."""
    lines: dict[str, str] = {}

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = f"{prefix}{key.value}"
                lines[name] = f"{path}:{key.start_mark.line + 1}"
                walk(value, f"{name}.")

    walk(yaml.compose(path.read_text(encoding="utf-8")), "")
    return lines


def _assign(tree: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise InputError(f"override {override!r}: {key} is a value, not a section: write {key}=…")
    tree[keys[-1]] = value


def _interpolate(value: Any, output: str) -> Any:
    match value:
        case str():
            return value.replace("${output}", output)
        case dict():
            return {key: _interpolate(item, output) for key, item in value.items()}
        case list():
            return [_interpolate(item, output) for item in value]
        case _:
            return value


def _explain(error: ValidationError, source: Path | None, origins: dict[str, str]) -> InputError:
    first = error.errors()[0]
    parts = [str(part) for part in first["loc"]]
    key = ".".join(parts)
    for n in range(len(parts), 0, -1):  # a list item has no line of its own: go up to the key that has
        if ".".join(parts[:n]) in origins:
            key = ".".join(parts[:n])
            place = origins[key] + ": "
            break
    else:
        inside = [place for name, place in origins.items() if name.startswith(f"{key}.")]
        place = f"{inside[-1] if inside else source}: " if inside or source else ""
    if first["type"] == "unexpected_keyword_argument":
        nearest = difflib.get_close_matches(key, all_keys(), n=1, cutoff=0.5) or [
            full for full in all_keys() if full.rpartition(".")[2] == key.rpartition(".")[2]
        ]
        section = [full for full in all_keys() if full.startswith(key.partition(".")[0] + ".")]
        hint = f"did you mean {nearest[0]}?" if nearest else f"known keys: {', '.join(section or all_keys())}"
        return InputError(f"{place}{key}: unknown key: {hint}")
    return InputError(f"{place}{key}: {first['msg']}: got {first['input']!r}")


def _check_heads(config: Config) -> None:
    if not config.single.dims and not config.multi.dims:
        raise InputError("single.dims, multi.dims: both empty: give at least one head its dims")
    width = config.single.projection
    if width and config.single.dims and max(config.single.dims) > width:
        raise InputError(f"single.dims: {max(config.single.dims)} is more than single.projection={width}: lower it")
