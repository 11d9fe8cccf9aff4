import json

from stores import clustered, write_store
from typer.testing import CliRunner

from colmrl.cli.main import main_app


def call(*arguments):
    return CliRunner().invoke(main_app, ["index", *map(str, arguments), "threads=1"])


def test_one_store_gives_an_index_for_each_view_and_a_table(tmp_path):
    store = write_store(tmp_path / "run/store", clustered(0, 120, 10))
    flags = ["--store", store, "--view", "single@8,multi@16:int8", "--type", "rabitq", "--no-gpu", "--seed", 3]
    made = call(*flags, "index.queries=5")
    assert made.exit_code == 0, made.output
    for slug, view in (("single-8", "single@8"), ("multi-16-int8", "multi@16:int8")):
        manifest = json.loads((tmp_path / f"run/indexes/{slug}-rabitq/manifest.json").read_text())
        assert (manifest["view"], manifest["type"], manifest["seed"], manifest["queries"]) == (view, "rabitq", 3, 5)
        (line,) = [line for line in made.stdout.splitlines() if f" {view} " in line]
        assert f"{manifest['recall']['10']:.3f}" in line
    again = call(*flags, "index.queries=5")
    assert again.exit_code == 0 and "single@8" in again.stdout
    other = call(*flags, "index.queries=6")
    assert other.exit_code == 2 and "index by another index.queries" in other.stderr


def test_wrong_flags_are_one_line(tmp_path):
    store = write_store(tmp_path / "store", clustered(0, 20, 5))
    for flags, said in [
        (["--view", "single@16", "--type", "tree"], "index.type"),
        (["--view", "multi@16", "--type", "flat"], "exact MaxSim needs no index"),
        (["--view", "single@3"], "was not trained"),
        (["--view", "middle@3"], "not of the form"),
    ]:
        refused = call("--store", store, *flags)
        assert refused.exit_code == 2 and said in refused.stderr, refused.output
        assert len([line for line in refused.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert not (tmp_path / "indexes").exists()
