"""python eval.py run --run a.trec --run b.trec --data DIR"""

import itertools
from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import ConfigFile, Overrides, Seed, Strict, configured, friendly, show_table

_SHOWN = 3  # of the worst queries of each run; the report has all


@friendly
def run(
    overrides: Overrides = None,
    config: ConfigFile = None,
    run: Annotated[list[str] | None, typer.Option(help="A TREC run file; several: each against the first.")] = None,
    data: Annotated[str | None, typer.Option(help="The data folder; else the config's.")] = None,
    split: Annotated[str | None, typer.Option(help="The qrels to judge by; else test.")] = None,
    out: Annotated[Path | None, typer.Option(help="For the files; else compared, beside the first run.")] = None,
    seed: Seed = None,
    strict: Strict = None,
) -> None:
    """nDCG, Recall, MRR and MAP of run files; differences to the first with p-values (paired randomisation, bootstrap)
    and wins, ties, losses; the worst queries with what was returned.
    """
    from colmrl.errors import InputError

    if not run:
        raise InputError("nothing to judge: give --run, a TREC run file (also several)")
    flags = {"data.eval_path": data, "data.eval_split": split, "seed": seed, "data.strict": strict}
    settings = configured(config, overrides, flags)
    from colmrl.evaluation.compare import compare_runs, comparison_lines, run_lines, worst_lines
    from colmrl.files import locked

    folder = out or Path(run[0]).parent / "compared"
    with locked(folder):
        compared = compare_runs(settings, run, folder)
    show_table(run_lines(compared.runs))
    if compared.comparisons:
        show_table(comparison_lines(compared.comparisons, compared.runs[0].name))
    worst = [[one for one in compared.worst if one.run == judged.name][:_SHOWN] for judged in compared.runs]
    show_table(worst_lines(list(itertools.chain(*worst))))
    typer.echo(folder / "report.md")
