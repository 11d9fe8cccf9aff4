"""colmrl inspect PATH"""

import json
from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, app, friendly, show_table

inspect_app = app("What a checkpoint, or another library's model, is read as.")


@inspect_app.command(context_settings=SETTINGS)
@friendly
def inspect(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A folder, or a hub id (owner/name).", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For machines, with every setting.")] = False,
) -> None:
    """Backbone, heads, dims, pooling, prompts, limits, licence. Nothing of it is loaded."""
    from colmrl.inspecting import inspect as run

    facts = run(path)
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    said = {name: fact for name, fact in facts.items() if fact and name != "settings"}
    rows = [(name, " | ".join(fact) if isinstance(fact, list) else str(fact)) for name, fact in said.items()]
    show_table([("", path), *rows])
