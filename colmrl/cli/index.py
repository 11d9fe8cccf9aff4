"""colmrl index --store DIR --view single@256,multi@128 --type ivf"""

from typing import Annotated

import typer

from colmrl.cli.common import SETTINGS, ConfigFile, Gpu, Overrides, Seed, app, configured, friendly, show_table
from colmrl.cli.given import check_store

index_app = app("Index a store for fast search, one folder a view.")


@index_app.command(context_settings=SETTINGS)
@friendly
def index(
    store: Annotated[str, typer.Option(help="The folder that encode.py wrote.")],
    view: Annotated[str, typer.Option(help="What to index, e.g. single@256,multi@128.")],
    overrides: Overrides = None,
    config: ConfigFile = None,
    type: Annotated[
        str | None, typer.Option(help="flat, ivf, hnsw, ivfpq or rabitq; multi: ivf, ivfpq, rabitq.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Where the folders go; by default indexes, beside the store.")] = None,
    probes: Annotated[int | None, typer.Option(help="Lists that a query looks into.")] = None,
    candidates: Annotated[int | None, typer.Option(help="Documents whose exact scores decide.")] = None,
    seed: Seed = None,
    gpu: Gpu = None,
) -> None:
    """Says how much of the exact ranking each index finds, its size, and its time beside exact search's. Many views
    need one encoding. Recall@100 of an index that scores 100 candidates exactly is that of the index before them.
    """
    flags = {
        "index.type": type,
        "index.probes": probes,
        "index.candidates": candidates,
        "index.gpu": gpu,
        "seed": seed,
    }
    settings = configured(config, overrides, flags)
    check_store(store, view)
    from colmrl.search.building import build_indexes
    from colmrl.search.plan import views_to_index

    built = build_indexes(settings, store, views_to_index(view), out)
    header = ["index", "view", "type", "recall@10", "recall@100", "MB", "build s", "query ms", "exact ms"]
    lines = [
        [str(one.folder), one.manifest.view, one.manifest.type]
        + [f"{one.manifest.recall[k]:.3f}" for k in ("10", "100")]
        + [f"{one.manifest.bytes / 1e6:.2f}", f"{one.measured.build_s:.1f}"]
        + [f"{one.measured.query_ms:.2f}", f"{one.measured.exact_ms:.2f}"]
        for one in built
    ]
    show_table([header, *lines])
    slower = [f"{one.manifest.view}-{one.manifest.type}" for one in built if one.slower]
    if slower:
        typer.echo(f"attention: slower than exact search: {', '.join(slower)}: search without them (no --index)")
