"""Rounds of train → encode → mine → retrain, judged after each; what is already done is skipped.

round-0/   the untrained (or zero-shot) model        checkpoint/ store/ results.json
round-1/   trained on pairs                          … and mining-store/ triples.jsonl
round-2/   trained on, with what round 1 mined       …
config.yaml environment.json results.json report.md frontier.png
"""

import json
import logging
import time
from pathlib import Path

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import replace, save_config, to_dict
from colmrl.data.beir import read_qrels, read_queries
from colmrl.data.sample import write_sample
from colmrl.encoding import encode
from colmrl.errors import InputError
from colmrl.evaluation.report import write_report
from colmrl.evaluation.run import Row, chosen_views, judge, read_results, write_results
from colmrl.mining import mine, report_path
from colmrl.models.retriever import fingerprint
from colmrl.models.tiny import write_tiny_model
from colmrl.store import EmbeddingStore
from colmrl.training.run import changed_keys, train

log = logging.getLogger(__name__)

# What may differ when a loop is gone on with: none of it changes what earlier stages wrote.
_FREE = (
    "loop.rounds",
    "eval.",
    "device",
    "train.workers",
    "encode.workers",
    "train.log_steps",
)


def loop(config: Config) -> list[Row]:
    """Run the rounds that `config.loop` asks for into `config.output`; returns the rows of all rounds."""
    start = time.monotonic()
    output = Path(config.output)
    _check_and_start(config, output)
    _prepare(config, output)
    rows: list[Row] = []
    for number in range(config.loop.rounds + 1):
        folder = output / f"round-{number}"
        if not (folder / "checkpoint").exists():
            log.info("round %d: training", number)
            train(_round_config(config, number))
        if 0 < number < config.loop.rounds:
            _mine_round(config, folder)
        rows += judge_round(config, number)
    write_results(output / "results.json", rows, config.seed)
    report = write_report(output, rows, _about(config, time.monotonic() - start))
    log.info("report: %s", report)
    return rows


def _about(config: Config, seconds: float) -> list[str]:
    """The paragraphs over the report's table."""
    kept = EmbeddingStore(Path(config.output) / "round-0/store/documents")
    ids = {q.id for q in read_queries(kept.manifest.data, config.data.strict)}, set(kept.ids)
    queries = len(read_qrels(kept.manifest.data, config.data.eval_split, *ids, config.data.strict))
    chance = f"a random order has Recall@1 {1 / len(kept):.4f}"
    return [
        f"`{provenance.command()}`, commit {provenance.commit()}, seed {config.seed}, {seconds:.0f} s in this call.",
        f"{queries} queries ({config.data.eval_split}) against {len(kept)} documents; {chance} or little more.",
    ]


def judge_round(config: Config, number: int) -> list[Row]:
    """Encode a round's evaluation data and judge it, or read what was judged before with the same views."""
    folder = Path(config.output) / f"round-{number}"
    made_with = {"fingerprint": fingerprint(folder / "checkpoint"), "eval": to_dict(config)["eval"]}
    path = folder / "results.json"
    if path.is_file():
        before = read_results(path)
        if made_with.items() <= before.items():
            return before["rows"]
    data = config.data.eval_path or config.data.path
    encode(config, folder / "checkpoint", data, folder / "store")
    rows = judge(config, folder / "store", chosen_views(config), number)
    write_results(path, rows, config.seed, **made_with)
    return rows


def judge_untrained(config: Config) -> tuple[str, list[Row]]:
    """Round 0 alone: the store and the rows of the recipe's model before any training."""
    output = Path(config.output)
    _check_and_start(config, output)
    _prepare(config, output)
    folder = output / "round-0"
    if not (folder / "checkpoint").exists():
        train(_round_config(config, 0))
    return str(folder / "store"), judge_round(config, 0)


def _mine_round(config: Config, folder: Path) -> None:
    shared = config.data.eval_path in (None, config.data.path)  # one corpus: judged and mined from one store
    store, triples = folder / ("store" if shared else "mining-store"), folder / "triples.jsonl"
    encode(config, folder / "checkpoint", config.data.path, store)
    if triples.exists():
        report = report_path(triples)
        if not report.is_file() or json.loads(report.read_text())["fingerprint"] != fingerprint(folder / "checkpoint"):
            raise InputError(f"{triples}: was mined with another checkpoint than {folder}'s: remove it to mine again")
        return
    log.info("%s: mining", folder.name)
    mine(config, store, triples)


def _round_config(config: Config, number: int) -> Config:
    output = Path(config.output)
    folder = str(output / f"round-{number}")
    if number == 0:
        return replace(config, output=folder, train={"max_steps": 0, "negatives": 0}, data={"triples": None})
    before = output / f"round-{number - 1}"
    return replace(
        config,
        output=folder,
        data={"triples": str(before / "triples.jsonl") if number > 1 else config.data.triples},
        train={
            "init_from": str(before / "checkpoint"),
            "negatives": config.train.negatives if number > 1 or config.data.triples else 0,
        },
    )


def _prepare(config: Config, output: Path) -> None:
    """The sample data and the tiny model, where the recipe asks for them and they are not there yet."""
    if config.loop.tiny_model and not (output / "model").exists():
        write_tiny_model(config.loop.tiny_model, output / "model", config.seed)
    if config.loop.sample and not (output / "data").exists():
        write_sample(output / "data", config.seed)


def _check_and_start(config: Config, output: Path) -> None:
    saved = output / "config.yaml"
    if saved.is_file():
        changed = [key for key in changed_keys(saved, config) if not key.startswith(_FREE)]
        if changed:
            raise InputError(f"{output}: holds a loop with other {', '.join(changed)}: choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    save_config(config, saved)
    environment = provenance.environment() | {"seed": config.seed}
    (output / "environment.json").write_text(json.dumps(environment, indent=2))
