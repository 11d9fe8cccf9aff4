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

    store, lines = _of(store), [("", "records", "view", "vectors", "bytes a record")]
    documents, queries = EmbeddingStore(store / "documents"), EmbeddingStore(store / "queries")
    for kind, kept in (("documents", documents), ("queries", queries)):
        for view in kept.views():
            count = kept.vectors_per_record(view)
            lines.append((kind, f"{len(kept):,}", str(view), f"{count:,.1f}", f"{view.bytes_per_document(count):,.0f}"))
    show_table(lines)
    for made in documents.made_on_reading():
        typer.echo(f"also, made while reading: {made}")
    manifest = documents.manifest
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    removed = f", {len(manifest.removed)} rows removed" if manifest.removed else ""
    typer.echo(f"{len(manifest.shards)} shards of documents{removed}; {size:,} bytes; stamp {documents.stamp}")
    pooled = f"{manifest.pooling}, position weight {manifest.position_weight:g}"
    typer.echo(f"{manifest.data}, by {manifest.checkpoint} ({manifest.fingerprint}); pooling: {pooled}")


@store_app.command(context_settings=SETTINGS)
@friendly
def check(
    store: Store,
    repair: Annotated[bool, typer.Option("--repair", help="Remove damaged files: encoding makes them anew.")] = False,
) -> None:
    """Read every byte: whether the files are what they were when the store was finished. Exit code 1 where not."""
    from colmrl.files import locked
    from colmrl.store import StoreWriter, read_manifest

    damaged, command = [], ""
    for folder in (_of(store) / "documents", _of(store) / "queries"):
        command = read_manifest(folder).command  # an unfinished store is said
        damaged += [folder / name for name in StoreWriter(folder).damaged()]
    for path in damaged:
        typer.echo(f"{path}: {'damaged' if path.exists() else 'missing'}")
    if repair and damaged:
        with locked(_of(store), remedy="try again"):
            for path in damaged:
                path.unlink(missing_ok=True)
    if damaged:
        first = "now give" if repair else "colmrl store check --repair removes what is damaged; then give"
        typer.echo(f"{first} the command that encoded it again, it makes these shards anew: {command}")
        raise typer.Exit(1)
    typer.echo(f"{store}: whole")


@store_app.command(context_settings=SETTINGS)
@friendly
def remove(
    store: Store,
    ids: Annotated[list[str] | None, typer.Argument(help="Documents to take out.", show_default=False)] = None,
    ids_file: Annotated[Path | None, typer.Option(help="A file with an id a line instead.")] = None,
) -> None:
    """Take documents out; search, mining and evaluation no longer see them. To add some: encode.py --append.

    They stay out, whether the data still has them or not, until their content changes.
    """
    from colmrl.errors import InputError
    from colmrl.files import locked
    from colmrl.store import read_manifest
    from colmrl.store import remove as run

    if bool(ids) == bool(ids_file):
        raise InputError("nothing, or two things, to remove: give ids, or --ids-file")
    names = ids or [line for line in (ids_file or Path()).read_text(encoding="utf-8").splitlines() if line]
    read_manifest(_of(store) / "documents")  # what is no store is said
    with locked(_of(store), remedy="try again"):
        count = run(_of(store) / "documents", names)
    typer.echo(f"{store}: removed: {count}; an index of it has to be built again")


def _of(store: Path) -> Path:
    """The store of both, where one of its halves was named."""
    return store.parent if store.name in ("documents", "queries") and (store / "manifest.json").is_file() else store
