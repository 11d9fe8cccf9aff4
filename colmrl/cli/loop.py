"""colmrl loop --config RECIPE"""

from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, ConfigFile, Overrides, Seed, app, configured, friendly, show_table
from colmrl.inputs import check_inputs

loop_app = app("Train, encode, mine, retrain, judge: as many rounds as the recipe says.")


@loop_app.command(context_settings=SETTINGS)
@friendly
def loop(
    overrides: Overrides = None,
    config: ConfigFile = None,
    output: Annotated[str | None, typer.Option(help="Run folder.")] = None,
    rounds: Annotated[int | None, typer.Option(help="How many.")] = None,
    seed: Seed = None,
) -> None:
    """Skips what is already done; writes report.md, results.json and frontier.png."""
    settings = configured(config, overrides, {"output": output, "loop.rounds": rounds, "seed": seed})
    check_inputs(settings, judged=True)
    from colmrl.evaluation.report import table_lines
    from colmrl.loop import loop as run

    show_table(table_lines(run(settings)))
    typer.echo(f"{settings.output}/report.md")
