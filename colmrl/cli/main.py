"""The `colmrl` command: the four scripts' stages, and what stands around them."""

from colmrl.cli.common import SETTINGS, app
from colmrl.cli.convert import convert
from colmrl.cli.data import data_app
from colmrl.cli.encode import encode, encode_app
from colmrl.cli.evaluate import eval_app
from colmrl.cli.export import export_app
from colmrl.cli.frontier import frontier, frontier_app
from colmrl.cli.index import index, index_app
from colmrl.cli.inspect import inspect, inspect_app
from colmrl.cli.leaderboard import leaderboard, leaderboard_app
from colmrl.cli.lineage import lineage, lineage_app
from colmrl.cli.loop import loop, loop_app
from colmrl.cli.merge import merge, merge_app
from colmrl.cli.mine import mine, mine_app
from colmrl.cli.prepare import prepare_app
from colmrl.cli.report import report, report_app
from colmrl.cli.search import search, search_app
from colmrl.cli.serve import serve, serve_app
from colmrl.cli.store import store_app
from colmrl.cli.train import train, train_app

main_app = app("Train a vision-language retriever, encode, mine, judge, and choose what each answer may cost.")
for name, command, own in (
    ("train", train, train_app),
    ("encode", encode, encode_app),
    ("index", index, index_app),
    ("search", search, search_app),
    ("serve", serve, serve_app),
    ("mine", mine, mine_app),
    ("frontier", frontier, frontier_app),
    ("loop", loop, loop_app),
    ("inspect", inspect, inspect_app),
    ("leaderboard", leaderboard, leaderboard_app),
    ("lineage", lineage, lineage_app),
    ("report", report, report_app),
    ("merge", merge, merge_app),
):
    main_app.command(name, context_settings=SETTINGS, short_help=own.info.help)(command)
main_app.command(context_settings=SETTINGS)(convert)
for name, group in (
    ("eval", eval_app),
    ("data", data_app),
    ("store", store_app),
    ("prepare", prepare_app),
    ("export", export_app),
):
    main_app.add_typer(group, name=name, short_help=group.info.help)
