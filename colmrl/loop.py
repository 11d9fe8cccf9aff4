"""Rounds of train → encode → mine → retrain, judged after each; what is already done is skipped.

round-0/   the untrained (or zero-shot) model        checkpoint/ store/ results.json
round-1/   trained on pairs                          … and mining-store/ triples.jsonl
round-2/   trained on, with what round 1 mined       …
round-N/manifest.json   each of these by content, and what it was made from (`lineage`)
config.yaml environment.json results.json report.md report.html frontier.png, and frontier/ where it is asked for
"""

import json
import logging
import time
from pathlib import Path

from colmrl import provenance
from colmrl.config import Config
from colmrl.configure import changed_keys, replace, save_config, to_dict
from colmrl.data.reading import read_collection
from colmrl.encoding import encode
from colmrl.errors import InputError
from colmrl.evaluation.each_query import join_each, write_each
from colmrl.evaluation.frontier_report import run_frontier
from colmrl.evaluation.report import write_report
from colmrl.evaluation.run import Row, chosen_views, judge_views, open_task, read_results, write_results
from colmrl.files import locked, write_text
from colmrl.inputs import check_inputs, write_inputs
from colmrl.lineage import hash_of, read_rounds, write_round
from colmrl.mining import mine, read_report
from colmrl.reporting.run_report import write_run_report
from colmrl.search import Plan
from colmrl.search.building import build_indexes
from colmrl.store import EmbeddingStore, read_manifest
from colmrl.training.run import train
from colmrl.view import TrainedViews, parse_views

log = logging.getLogger(__name__)

# What may differ when a loop is gone on with: none of it changes what earlier stages wrote.
_FREE = ("loop.rounds", "loop.frontier", "frontier.", "eval.", "device")
_FREE += ("train.workers", "encode.workers", "train.log_steps")


def loop(config: Config) -> list[Row]:
    """Run the rounds that `config.loop` asks for into `config.output`; returns the rows of all rounds."""
    _check_views(config)
    check_inputs(config, judged=True)
    config = write_inputs(config)
    with locked(Path(config.output), remedy="choose another --output"):
        return _rounds(config)


def _rounds(config: Config) -> list[Row]:
    output = Path(config.output)
    _start(config, output)
    rows: list[Row] = []
    for number in range(config.loop.rounds + 1):
        start = time.monotonic()
        folder = output / f"round-{number}"
        if not (folder / "checkpoint").exists():
            log.info("round %d: training", number)
            train(_round_config(config, number))
        if 0 < number < config.loop.rounds:
            _mine_round(config, folder)
        rows += judge_round(config, number, start)
        _write_down(config, number)
    write_results(output / "results.json", rows, config.seed)
    join_each(output / "results.json", [output / f"round-{n}/results.json" for n in range(config.loop.rounds + 1)])
    if config.loop.frontier:
        last = output / f"round-{config.loop.rounds}"
        run_frontier(config, None, last / "store", output / "frontier")
    log.info("report: %s", write_report(output, rows, _about(config)))
    log.info("report: %s", write_run_report(output, output / "report.html"))
    return rows


def judge_round(config: Config, number: int, start: float) -> list[Row]:
    """Encode a round's evaluation data and judge it, or give what was judged before of the same vectors in the
    same way. `start`: when the round's work began, for its seconds.
    """
    folder = Path(config.output) / f"round-{number}"
    data = config.data.eval_path or config.data.path
    store = encode(config, folder / "checkpoint", data, folder / "store")
    manifests = [read_manifest(store / kind) for kind in ("documents", "queries")]
    judged = {"of": [[m.fingerprint, m.content_hash] for m in manifests], "eval": to_dict(config)["eval"]}
    path = folder / "results.json"
    if path.is_file():
        before = read_results(path)
        if before.get("judged") == judged:
            return before["rows"]
    task = open_task(config, store)
    found = judge_views(config, task, chosen_views(config))
    rows = [row for one in found for row in one.rows(number)]
    write_each(path, task.facts, [({"round": number, "view": str(one.view)}, one.each) for one in found])
    write_results(path, rows, config.seed, judged=judged, seconds=round(time.monotonic() - start))
    return rows


def _about(config: Config) -> list[str]:
    """The paragraphs over the report's table: what was judged, and the command and commit of each round."""
    folder = Path(config.output)
    kept = EmbeddingStore(folder / "round-0/store/documents")
    queries = len(read_collection(kept.manifest.data, config.data, config.show).judged(config.data.eval_split))
    runs: dict[tuple[str, str | None], list[tuple[int, int]]] = {}
    for number in range(config.loop.rounds + 1):
        result = read_results(folder / f"round-{number}/results.json")
        runs.setdefault((result["command"], result["commit"]), []).append((number, result["seconds"]))
    said = [
        f"Round {', '.join(f'{number} ({seconds} s)' for number, seconds in rounds)}: `{command}`, commit {commit}, "
        f"seed {config.seed}."
        for (command, commit), rounds in runs.items()
    ]
    chance = f"a random order has Recall@1 {1 / len(kept):.4f}"
    judged = f"{queries} queries ({config.data.eval_split}) against {len(kept)} documents; {chance} or little more."
    return [*said, f"{judged} Round 0 is untrained (zero-shot)."]


def untrained_store(config: Config) -> tuple[Config, Path]:
    """Round 0 alone: the store of the recipe's model before any training; the settings, generated inputs named."""
    _check_views(config)
    config = write_inputs(config)
    output = Path(config.output)
    _start(config, output)
    folder = output / "round-0"
    if not (folder / "checkpoint").exists():
        train(_round_config(config, 0))
    return config, encode(config, folder / "checkpoint", config.data.eval_path or config.data.path, folder / "store")


def _mine_round(config: Config, folder: Path) -> None:
    shared = config.data.eval_path in (None, config.data.path)  # one corpus: judged and mined from one store
    store, triples = folder / ("store" if shared else "mining-store"), folder / "triples.jsonl"
    encode(config, folder / "checkpoint", config.data.path, store)
    documents = EmbeddingStore(store / "documents")
    if triples.exists():
        if read_report(triples)["store_stamp"] != documents.stamp:
            raise InputError(f"{triples}: was mined from another store than {store}: remove it to mine again")
        return
    if config.loop.index:
        plan = Plan.parse(config.mine.view) if config.mine.view else Plan.of(documents.views()[0])
        (built,) = build_indexes(config, store, [plan.stages[0].view], folder / "indexes")
        config = replace(config, mine={"index": str(built.folder)})
    log.info("%s: mining", folder.name)
    mine(config, store, triples)


def _write_down(config: Config, number: int) -> None:
    output = Path(config.output)
    before = [round for round in (read_rounds(output) if number else []) if round.round == number - 1]
    trained_on = [round.hash_of("checkpoint") for round in before]
    if number > 1:
        trained_on += [round.hash_of("triples") for round in before]
    elif number == 1 and config.data.triples:
        trained_on.append(hash_of("triples", Path(config.data.triples)))
    write_round(output, number, [stated for stated in trained_on if stated])


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


def _start(config: Config, output: Path) -> None:
    """Check what can be known before the first step, and write down what is run."""
    saved = output / "config.yaml"
    if saved.is_file():
        mined = any(output.glob("round-*/triples.jsonl"))
        free = _FREE if mined else (*_FREE, "mine.")  # what is not made yet may still be asked for otherwise
        changed = [key for key in changed_keys(saved, config) if not key.startswith(free)]
        if changed:
            raise InputError(
                f"{output}: holds a loop with other {', '.join(changed)}: choose another --output, or remove it"
            )
    save_config(config, saved)
    if not (output / "environment.json").exists():
        environment = provenance.environment() | {"seed": config.seed}
        write_text(output / "environment.json", json.dumps(environment, indent=2))


def _check_views(config: Config) -> None:
    if not config.data.path:
        raise InputError("data.path: not given: a loop encodes and mines a corpus; train.py alone needs triples only")
    trained = TrainedViews(config.single.dims, config.multi.dims)
    mined = [stage.view for stage in Plan.parse(config.mine.view).stages] if config.mine.view else []
    for view in [*parse_views([*config.eval.views, *config.encode.views]), *mined]:
        trained.check(view)
    if (config.loss.teacher_kl or config.loss.teacher_margin_mse) and not (config.data.triples or config.data.sources):
        raise InputError(
            "loss.teacher_kl, loss.teacher_margin_mse: round 1 has no triples with scores: give data.triples"
        )
    wanted = config.train.negatives
    if config.loop.rounds > 1 and wanted is not None and not 0 < wanted <= config.mine.negatives:
        raise InputError(
            f"train.negatives: {wanted}: a round that mines {config.mine.negatives} (mine.negatives) cannot train "
            f"with {wanted}: choose 1 to {config.mine.negatives}"
        )
