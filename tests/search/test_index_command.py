import json

from stores import clustered, write_store
from typer.testing import CliRunner

from colmrl.cli.main import main_app
from colmrl.search import building


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
    other = call(*flags, "index.lists=2")
    said = "was built with index.lists=null, not 2: remove it, or give another --out"
    assert other.exit_code == 2 and said in other.stderr


def test_an_index_that_is_slower_than_exact_search_is_said_to_be(tmp_path, monkeypatch):
    store = write_store(tmp_path / "store", clustered(0, 120, 10))
    flags = ["--store", store, "--view", "single@8", "--no-gpu"]
    takes = iter([0.002, 0.001, 0.001, 0.002])
    monkeypatch.setattr(building, "_one_at_a_time", lambda find, asked, k: (found(find, asked, k), next(takes)))
    slower, faster = call(*flags, "--type", "ivf"), call(*flags, "--type", "flat")
    assert "attention: slower than exact search: single@8-ivf" in slower.stdout and "2.00" in slower.stdout
    assert "attention" not in faster.stdout and "exact ms" in faster.stdout
    measured = json.loads((tmp_path / "indexes/single-8-flat/measured.json").read_text())
    assert (measured["query_ms"], measured["exact_ms"]) == (1.0, 2.0)


def found(find, asked, k):
    return list(find(asked, k)[1])


def test_faiss_says_nothing_of_few_vectors_and_we_say_it_once(tmp_path, capfd):
    store = write_store(tmp_path / "store", clustered(0, 300, 10))
    for kind, view, said in [("ivfpq", "single@16", 1), ("ivf", "single@16", 0), ("rabitq", "multi@16", 0)]:
        made = call("--store", store, "--view", view, "--type", kind, "--no-gpu")
        assert made.exit_code == 0, made.output
        assert made.stderr.count("attention: 300 training vectors for 256 centroids") == said
        assert "WARNING" not in "".join(capfd.readouterr())


def test_wrong_flags_are_one_line(tmp_path):
    store = write_store(tmp_path / "store", clustered(0, 20, 5))
    for flags, said in [
        (["--view", "single@16", "--type", "tree"], "index.type"),
        (["--view", "multi@16", "--type", "flat"], "exact MaxSim needs no index"),
        (["--view", "single@3"], "was not trained"),
        (["--view", "middle@3"], "not of the form"),
        (
            ["--view", "single@16,single@8/10+multi@16"],
            "a funnel, which cannot be indexed: index its first view (single@8)",
        ),
    ]:
        refused = call("--store", store, *flags)
        assert refused.exit_code == 2 and said in refused.stderr, refused.output
        assert len([line for line in refused.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert not (tmp_path / "indexes").exists()
