"""colmrl store show | check | remove DIR"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, app, friendly, show_table

store_app = app("What a store holds, whether it is whole, and taking documents out of it.")

Store = Annotated[Path, typer.Argument(help="The folder that encode.py wrote.", show_default=False)]


@store_app.command(context_settings=SETTINGS)
@friendly
def show(store: Store) -> None:
    """Records, views with their bytes a document, and which checkpoint and data they are of."""
    from colmrl.store import EmbeddingStore

    lines = [("", "records", "view", "vectors", "bytes a record")]
    for kind in ("documents", "queries"):
        kept = EmbeddingStore(store / kind)
        for view in kept.views():
            count = kept.vectors_per_record(view)
            lines.append((kind, f"{len(kept):,}", str(view), f"{count:,.1f}", f"{view.bytes_per_document(count):,.0f}"))
    show_table(lines)
    manifest = EmbeddingStore(store / "documents").manifest
    pooled = f"{manifest.pooling}, position weight {manifest.position_weight:g}"
    typer.echo(f"{manifest.data}, by {manifest.checkpoint} ({manifest.fingerprint}); pooling: {pooled}")


@store_app.command(context_settings=SETTINGS)
@friendly
def check(store: Store) -> None:
    """Read every byte: whether the files are what they were when the store was finished. Exit code 1 where not."""
    from colmrl.store import StoreWriter, read_manifest

    damaged = []
    for kind in ("documents", "queries"):
        read_manifest(store / kind)  # an unfinished store is said
        damaged += [store / kind / name for name in StoreWriter(store / kind).damaged()]
    for path in damaged:
        typer.echo(f"{path}: damaged or missing: remove it and run encode.py again, it is made anew")
    if damaged:
        raise typer.Exit(1)
    typer.echo(f"{store}: whole")


@store_app.command(context_settings=SETTINGS)
@friendly
def remove(
    store: Store,
    ids: Annotated[list[str] | None, typer.Argument(help="Documents to take out.", show_default=False)] = None,
    ids_file: Annotated[Path | None, typer.Option(help="A file with an id a line instead.")] = None,
) -> None:
    """Take documents out; search, mining and evaluation no longer see them. To add some: encode.py --append."""
    from colmrl.errors import InputError
    from colmrl.store import remove as run

    if bool(ids) == bool(ids_file):
        raise InputError("nothing, or two things, to remove: give ids, or --ids-file")
    names = ids or [line for line in (ids_file or Path()).read_text(encoding="utf-8").splitlines() if line]
    count = run(store / "documents", names)
    typer.echo(f"{store}: {count} documents removed; an index of it has to be built again")
