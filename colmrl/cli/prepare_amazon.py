"""colmrl prepare amazon"""

from pathlib import Path
from typing import Annotated

import typer

from colmrl.cli.common import friendly


@friendly
def amazon(
    reviews: Annotated[
        str, typer.Argument(help="Reviews of a category, as released in 2014, 2018 or 2023; .gz or not.")
    ],
    meta: Annotated[str, typer.Argument(help="The product data of the same release.")],
    out: Annotated[str, typer.Option(help="A new folder, for data.path.")],
    images: Annotated[
        str | None, typer.Option(help="With --use-image: a folder of pictures <item>.jpg, .png, …; else downloaded.")
    ] = None,
    min_rating: Annotated[float, typer.Option(help="Reviews with a lower rating do not count.")] = 3,
    min_uc: Annotated[int, typer.Option(help="The fewest interactions of a user.")] = 20,
    min_sc: Annotated[int, typer.Option(help="The fewest interactions of an item.")] = 20,
    use_image: Annotated[bool, typer.Option("--use-image", help="Items show a picture as well.")] = False,
    generate_caption: Annotated[bool, typer.Option("--generate-caption", help="Have --vlm caption pictures.")] = False,
    generate_semantic_summary: Annotated[
        bool, typer.Option("--generate-semantic-summary", help="Have --vlm summarise items, long and short.")
    ] = False,
    vlm: Annotated[str | None, typer.Option(help="A vision-language model that writes: a folder or hub id.")] = None,
) -> None:
    """Who bought what in which order, from Amazon reviews; run it again to go on where it stopped."""
    from colmrl.files import locked
    from colmrl.preparing.amazon import prepare_amazon

    with locked(Path(out), beside=True):
        typer.echo(
            prepare_amazon(
                reviews,
                meta,
                out,
                min_rating=min_rating,
                min_uc=min_uc,
                min_sc=min_sc,
                use_image=use_image,
                images=images,
                generate_caption=generate_caption,
                generate_semantic_summary=generate_semantic_summary,
                vlm=vlm,
            )
        )
