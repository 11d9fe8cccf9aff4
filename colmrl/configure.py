"""Fill the configuration: defaults ← YAML ← `section.key=value`; a typo names the nearest key."""

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from colmrl.config import Config, FilterConfig
from colmrl.errors import InputError
from colmrl.files import write_text

RECIPES = Path(__file__).parent / "recipes"
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
    tree["output"] = str(Path(str(tree.get("output") or Config.output)))  # without a closing slash
    try:
        config = _ADAPTER.validate_python(_interpolate(tree, tree["output"]))
    except ValidationError as error:
        raise _explain(error, source, origins) from None
    _check(config)
    return config


def save_config(config: Config, path: Path) -> None:
    write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False))


def changed_keys(path: Path, config: Config) -> list[str]:
    """The dotted keys in which `config` differs from the one saved at `path`; that the folder was moved is none."""
    before, now = _relative(flat(_read_yaml(path))), _relative(flat(to_dict(config)))
    return [key for key in now if before.get(key) != now[key]]


def _relative(values: dict[str, Any]) -> dict[str, Any]:
    """Paths inside the run folder, written from there."""
    output = str(values.get("output", ""))

    def relative(value: Any) -> Any:
        inside = isinstance(value, str) and (value == output or value.startswith(f"{output}/"))
        return "${output}" + value[len(output) :] if inside else value

    return {key: relative(value) for key, value in values.items()}


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
    if any(isinstance(part, int) for part in first["loc"]):
        return InputError(f"{place}{_explain_item(first['loc'], first)}")
    if first["type"] == "unexpected_keyword_argument":
        if parts[0] == "mine" and parts[-1] in _fields(FilterConfig):
            return InputError(f"{place}{'.'.join(parts)}: unknown key: did you mean mine.filters=[{{{parts[-1]}: …}}]?")
        if len(parts) == 1:  # an unknown section: its keys say more
            key = next((name for name in origins if name.startswith(f"{key}.")), key)
        nearest = difflib.get_close_matches(key, all_keys(), n=1, cutoff=0.5) or [
            full for full in all_keys() if full.rpartition(".")[2] == key.rpartition(".")[2]
        ]
        section = [full for full in all_keys() if full.startswith(key.partition(".")[0] + ".")]
        hint = f"did you mean {nearest[0]}?" if nearest else f"known keys: {', '.join(section or all_keys())}"
        return InputError(f"{place}{key}: unknown key: {hint}")
    return InputError(f"{place}{key}: {first['msg']}: got {first['input']!r}")


def _explain_item(loc: Sequence[str | int], error: Any) -> str:
    """What is wrong inside a list of settings: which step or item of it, counted from 1, and which of its keys."""
    at = next(n for n, part in enumerate(loc) if isinstance(part, int))
    listed, inside = ".".join(map(str, loc[:at])), loc[at + 1 :]
    word = "step" if listed == "mine.filters" else "item"
    place = f"{listed}: {word} {int(loc[at]) + 1}: {''.join(f'{part}: ' for part in inside)}"
    if error["type"] != "unexpected_keyword_argument":
        return f"{place}{error['msg']}: got {error['input']!r}"
    kind: Any = Config
    for part in loc[:-1]:
        kind = next(iter(_classes(kind if isinstance(part, int) else get_type_hints(kind)[part])))
    keys = _fields(kind)
    nearest = difflib.get_close_matches(str(loc[-1]), keys, n=1, cutoff=0.5)
    return f"{place}unknown key: " + (f"did you mean {nearest[0]}?" if nearest else f"known keys: {', '.join(keys)}")


def _fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _classes(hint: Any) -> list[Any]:
    """The sections that a type hint (`tuple[X, ...]`, `X | None`) is made of."""
    if dataclasses.is_dataclass(hint):
        return [hint]
    return [one for part in get_args(hint) for one in _classes(part)]


def _check(config: Config) -> None:
    """What no single value shows."""
    _check_filters(config.mine.filters)
    if config.model.tuning == "full" and config.model.dtype != "fp32":
        dtype = config.model.dtype
        raise InputError(
            f"model.dtype: {dtype} loses small updates when all weights are trained: use fp32 with "
            f"train.precision={dtype}, or model.tuning=lora"
        )
    if config.model.tuning == "full" and config.model.quantization:
        raise InputError(
            f"model.quantization: {config.model.quantization} weights cannot be trained: use model.tuning=lora"
        )
    if config.lora.targets and config.lora.vision:
        raise InputError("lora.targets, lora.vision: both given: write the vision tower's layers into lora.targets")
    if not config.single.dims and not config.multi.dims:
        raise InputError("single.dims, multi.dims: both empty: give at least one head its dims")
    width = config.single.projection
    if width and config.single.dims and max(config.single.dims) > width:
        raise InputError(f"single.dims: {max(config.single.dims)} is more than single.projection={width}: lower it")


def _check_filters(steps: Sequence[FilterConfig]) -> None:
    for number, step in enumerate(steps, 1):
        given = [name for name in _fields(FilterConfig) if getattr(step, name) is not None]
        place = f"mine.filters: step {number}: "
        if len(given) != 1:
            raise InputError(
                f"{place}{', '.join(given) or 'nothing'} given: give each step exactly one of "
                f"{', '.join(_fields(FilterConfig))}"
            )
        if step.teacher and [step.teacher.store, step.teacher.reranker, step.teacher.scores].count(None) != 2:
            raise InputError(f"{place}teacher: give it one of store, reranker, scores (a TREC run file)")
        if step.teacher and step.teacher.view and not step.teacher.store:
            raise InputError(
                f"{place}teacher: view={step.teacher.view}: is of a store, and there is none: leave it out"
            )
