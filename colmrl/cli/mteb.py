"""python eval.py mteb --checkpoint DIR --views single@256,multi@128 --benchmark NAME | --task NAME | --data DIR"""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import Overrides, configured, friendly, show_table
from colmrl.cli.given import check_checkpoint


@friendly
def mteb(
    checkpoint: Annotated[str, typer.Option(help="What train.py wrote: OUTPUT/checkpoint.")],
    views: Annotated[str, typer.Option(help="Or funnels, bm25: single@256,multi@64x32,single@64/1000+multi@128,bm25.")],
    overrides: Overrides = None,
    benchmark: Annotated[str | None, typer.Option(help='Of mteb, e.g. "ViDoRe(v3)"; its retrieval tasks.')] = None,
    task: Annotated[list[str] | None, typer.Option(help="Of mteb, by name; also several.")] = None,
    data: Annotated[str | None, typer.Option(help="A data folder as a task, without the hub.")] = None,
    index: Annotated[str | None, typer.Option(help="A type (hnsw, ivf, …), or a folder of colmrl index.")] = None,
    rerank: Annotated[str | None, typer.Option(help="A reranker, for the rerank.top_k first found.")] = None,
    encoder: Annotated[bool, typer.Option("--encoder", help="Only encode: mteb searches; for any task.")] = False,
    out: Annotated[Path | None, typer.Option(help="For results and embeddings; else mteb, beside checkpoint.")] = None,
    submit: Annotated[Path | None, typer.Option(help="Write there what a submission to mteb needs.")] = None,
) -> None:
    """Judged by mteb's own code, at the search that is served. What is there is not computed again."""
    from colmrl.errors import InputError

    if sum(map(bool, (benchmark, task, data))) != 1:
        raise InputError("what to judge by: give one of --benchmark, --task (also several), --data")
    if importlib.util.find_spec("mteb") is None:
        raise InputError('mteb is not installed: pip install "mteb>=2.26"')
    settings = configured(None, overrides, {})
    check_checkpoint(checkpoint)
    from datasets import disable_progress_bars

    from colmrl.evaluation.mteb_meta import default_folder
    from colmrl.evaluation.mteb_run import Judge, table_lines, write_judged
    from colmrl.evaluation.mteb_stores import TaskStores
    from colmrl.evaluation.mteb_submission import write_submission
    from colmrl.evaluation.mteb_tasks import benchmark_tasks, local_task, named_tasks
    from colmrl.evaluation.mteb_ways import parse_ways
    from colmrl.files import locked

    names = [name.strip() for name in views.split(",")]
    disable_progress_bars()  # mteb prepares data behind its own
    ways = parse_ways(",".join(name for name in names if name != "bm25"), index, rerank)
    folder = out or default_folder(checkpoint)
    stores = TaskStores(settings, checkpoint, folder / "stores")
    if data is not None:
        tasks = [local_task(settings, data, stores.description.show, folder / "datasets")]
    else:
        tasks = benchmark_tasks(benchmark) if benchmark else named_tasks(task or [])
    given = tuple(override.partition("=")[0] for override in overrides or [])
    with locked(folder):
        results = Judge(stores, folder, encoder, "bm25" in names, given).judge(tasks, ways)
        show_table(table_lines(results))
        write_judged(folder / "results.json", results, settings)
    if submit is not None:
        write_submission([result for result in results if result.way is not None], folder, submit)
        typer.echo(submit)
    typer.echo(folder)
