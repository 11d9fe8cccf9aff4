"""python eval.py --store DIR | --checkpoint DIR --data DIR | --config RECIPE; eval.py rerank …, eval.py baselines …"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import (
    SETTINGS,
    ConfigFile,
    FirstIsMeant,
    Gpu,
    Overrides,
    Strict,
    app,
    configured,
    friendly,
    show_table,
)
from colmrl.cli.compare import run as compare_runs
from colmrl.cli.given import check_checkpoint, check_store
from colmrl.cli.mteb import mteb
from colmrl.inputs import check_data

eval_app = app("Judge a store, a checkpoint, a recipe's untrained model, or rerankers.", FirstIsMeant)


@eval_app.command(context_settings=SETTINGS)
@friendly
def evaluate(
    overrides: Overrides = None,
    config: ConfigFile = None,
    store: Annotated[str | None, typer.Option(help="The folder that encode.py wrote.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Encode with this first, beside it.")] = None,
    data: Annotated[str | None, typer.Option(help="The data folder; else the store's or the config's.")] = None,
    split: Annotated[str | None, typer.Option(help="The qrels to judge by; else test.")] = None,
    views: Annotated[str | None, typer.Option(help="e.g. single@64,multi@64x16; else all that there are.")] = None,
    out: Annotated[str | None, typer.Option(help="A folder, or a .json file; else STORE/results.json.")] = None,
    runs: Annotated[Path | None, typer.Option(help="A folder for what was found: a TREC run file a view.")] = None,
    strict: Strict = None,
    gpu: Gpu = None,
) -> None:
    """nDCG@{1,5,10}, Recall@{1,5,10}, MRR@10, MAP@10 and bytes a document. With a config alone: zero-shot.

    Rerankers: eval.py rerank --help. By mteb's own code: eval.py mteb --help. What came next in sequences, without a
    model: eval.py baselines --help.
    """
    from colmrl.errors import InputError

    if not (store or checkpoint or config):
        raise InputError("nothing to judge: give --store, --checkpoint with --data, or --config")
    flags = {
        "data.eval_path": data,
        "data.eval_split": split,
        "eval.views": views.split(",") if views else None,
        "data.strict": strict,
        "eval.gpu": gpu,
    }
    settings = configured(config, overrides, flags)
    if store is not None:
        check_store(store, views)
    elif checkpoint is not None:
        check_checkpoint(checkpoint, views)
        check_data(settings.data.eval_path or settings.data.path, settings.data)
    from colmrl.encoding import encode
    from colmrl.evaluation.each_query import write_each
    from colmrl.evaluation.report import table_lines
    from colmrl.evaluation.run import chosen_views, judge_views, open_task, write_results
    from colmrl.files import locked
    from colmrl.loop import untrained_store

    number = None
    if store is None and checkpoint is None:
        settings, made = untrained_store(settings)
        store, number = str(made), 0
    elif store is None:
        assert checkpoint is not None
        folder = settings.data.eval_path or settings.data.path
        store = str(encode(settings, checkpoint, folder, Path(checkpoint).parent / "store"))
    task = open_task(settings, store)
    judged = judge_views(settings, task, chosen_views(settings), runs)
    rows = [row for one in judged for row in one.rows(number)]
    show_table(table_lines(rows))  # first: a place that cannot be written must not cost the numbers
    path = Path(out or store)
    path = path if path.suffix == ".json" else path / "results.json"
    with locked(path, beside=True):
        write_results(path, rows, settings.seed, store=store)
        write_each(path, task.facts, [({"round": number, "view": str(one.view)}, one.each) for one in judged])
    typer.echo(path)


@eval_app.command(context_settings=SETTINGS)
@friendly
def rerank(
    model: Annotated[list[str] | None, typer.Option(help="A reranker's checkpoint, or a store; also several.")] = None,
    overrides: Overrides = None,
    config: ConfigFile = None,
    run: Annotated[str | None, typer.Option(help="Candidates: a TREC run file.")] = None,
    store: Annotated[str | None, typer.Option(help="Candidates: a store, searched at --view.")] = None,
    view: Annotated[str | None, typer.Option(help="Of a store; or a funnel. Else its first.")] = None,
    mode: Annotated[str | None, typer.Option(help="Candidates: ground_truth, retrieval, shown.")] = None,
    data: Annotated[str | None, typer.Option(help="The data folder; else the config's.")] = None,
    split: Annotated[str | None, typer.Option(help="The qrels to judge by; else test.")] = None,
    protocol: Annotated[str | None, typer.Option(help="qilin: its official evaluation, beside the full split.")] = None,
    out: Annotated[str | None, typer.Option(help="Where results go; else rerank, beside the first model.")] = None,
) -> None:
    """Recall@K, MRR@{10,100}, MAP@10, nDCG@{5,10}, beside the candidates' own order, random order and BM25."""
    from colmrl.errors import InputError

    if not model:
        raise InputError("nothing to judge: give --model, a reranker's checkpoint or a store (also several)")
    if protocol not in (None, "qilin"):
        raise InputError(f"--protocol {protocol}: unknown: give qilin, or leave it out")
    flags = {
        "rerank.run": run,
        "rerank.store": store,
        "rerank.view": view,
        "rerank.mode": mode,
        "data.eval_path": data,
        "data.eval_split": split,
    }
    settings = configured(config, overrides, flags)
    from colmrl.evaluation.rerank_report import judge_rerankers
    from colmrl.files import locked

    folder = Path(out) if out else Path(model[0]).parent / "rerank"
    given = [override.partition("=")[0] for override in overrides or []]
    with locked(folder):
        tables = judge_rerankers(settings, model, folder, "qilin" if protocol else None, given)
    for title, table in tables:
        typer.echo(title)
        show_table(table)
    typer.echo(folder)


@eval_app.command(context_settings=SETTINGS)
@friendly
def baselines(
    data: Annotated[str, typer.Option(help="A folder of sequences (user_sequence.txt).")],
    out: Annotated[Path, typer.Option(help="For popularity.trec, markov.trec, bm25.trec and results.json.")],
    overrides: Overrides = None,
    split: Annotated[str | None, typer.Option(help="valid or test; else test.")] = None,
    k: Annotated[int, typer.Option(min=1, help="Items a user.")] = 20,
) -> None:
    """What is popular, what came next before, what reads like the history: first stages for eval.py rerank --run."""
    settings = configured(None, overrides, {"data.eval_path": data, "data.eval_split": split})
    from colmrl.evaluation.rerank_report import judge_baselines
    from colmrl.files import locked

    with locked(out):
        table = judge_baselines(settings, out, k)
    show_table(table)
    typer.echo(out)


eval_app.command("run", context_settings=SETTINGS)(compare_runs)
eval_app.command(context_settings=SETTINGS)(mteb)
