"""colmrl lineage RUN"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, app, friendly, show_table

lineage_app = app("What a loop made of what.")


@lineage_app.command(context_settings=SETTINGS)
@friendly
def lineage(run: Annotated[Path, typer.Argument(help="The --output of a colmrl loop.", show_default=False)]) -> None:
    """Each round's checkpoint, store, index, triples and results by content hash, what each was made from, and whether
    it still is what it was (everything is read). Exit code 1 where something is not.
    """
    from colmrl.lineage import checked, read_rounds

    rounds = read_rounds(run)
    named = {link.hash: f"{each.round}/{link.what}" for each in reversed(rounds) for link in each.links}
    lines, wrong = [("round", "what", "hash", "made from", "now")], 0
    for number, link, said in checked(run, rounds):
        of = ", ".join(named.get(source, source[:12]) for source in link.of)
        lines.append((str(number), link.path, link.hash[:12], of, said or "the same"))
        wrong += bool(said)
    show_table(lines)
    if wrong:
        raise typer.Exit(1)
