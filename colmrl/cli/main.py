"""The `colmrl` command: the four scripts' stages, and what stands around them."""

from colmrl.cli.common import SETTINGS, app
from colmrl.cli.convert import convert
from colmrl.cli.data import data_app
from colmrl.cli.encode import encode
from colmrl.cli.evaluate import eval_app
from colmrl.cli.index import index
from colmrl.cli.lineage import lineage
from colmrl.cli.loop import loop
from colmrl.cli.merge import merge
from colmrl.cli.mine import mine
from colmrl.cli.prepare import prepare_app
from colmrl.cli.search import search
from colmrl.cli.store import store_app
from colmrl.cli.train import train

main_app = app("Train a vision-language retriever, encode, mine, judge, and choose what each answer may cost.")
main_app.command(context_settings=SETTINGS)(train)
main_app.command(context_settings=SETTINGS)(encode)
main_app.command(context_settings=SETTINGS)(index)
main_app.command(context_settings=SETTINGS)(search)
main_app.command(context_settings=SETTINGS)(mine)
main_app.command(context_settings=SETTINGS)(loop)
main_app.command(context_settings=SETTINGS)(lineage)
main_app.command(context_settings=SETTINGS)(convert)
main_app.command(context_settings=SETTINGS)(merge)
main_app.add_typer(eval_app, name="eval")
main_app.add_typer(data_app, name="data")
main_app.add_typer(store_app, name="store")
main_app.add_typer(prepare_app, name="prepare")
