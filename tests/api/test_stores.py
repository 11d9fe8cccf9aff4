"""Store of the Python API: the commands' own searching, judging and mining, and what a notebook shows."""

import re

import pytest
from PIL import Image

import colmrl
from colmrl.config import Config
from colmrl.configure import load_config
from colmrl.data.beir import read_corpus
from colmrl.data.media import open_image
from colmrl.data.records import Query
from colmrl.errors import InputError
from colmrl.evaluation.run import judge
from colmrl.mining import mine
from colmrl.showing.answering import answer
from colmrl.view import parse_views


@pytest.fixture(scope="module")
def opened(store):
    return colmrl.open_store(store, settings=["device=cpu"])


@pytest.mark.parametrize("view", [None, "multi@16", "single@32/6+multi@64x4:int8"])
def test_search_finds_what_the_command_finds(view, opened, store):
    found = opened.search("a red circle", k=3, view=view)
    own = answer(load_config(None, ["device=cpu"]), store, Query("q", "a red circle"), view, k=3)
    assert found.ids == [result.document.id for result in own.results] and len(found) == 3
    assert [(hit.rank, hit.score) for hit in found] == [(result.rank, result.score) for result in own.results]
    assert found.how == (view or "single@128") and found.ms["search"] > 0


def test_a_list_is_searched_one_by_one_with_a_model_that_is_opened_once(opened, sample):
    first = read_corpus(sample / "train")[0]
    with Image.open(first.images[0]) as picture:
        by_text, by_picture = opened.search(["blue ring", picture], k=2)
    assert by_text.ids == opened.search("blue ring", k=2).ids
    assert by_picture[0].id == first.id and by_picture[0].score == pytest.approx(1, abs=1e-4)
    assert by_picture[0].image.tobytes() == open_image(first.images[0]).tobytes()
    assert opened.retriever.model is opened.retriever.model and opened.search([]) == []


def test_a_notebook_shows_small_pages_and_runs_nothing_that_it_was_asked(opened):
    found = opened.search("<script>alert(1)</script>", k=4)
    shown = found._repr_html_()
    assert len(re.findall(r'<img [^>]*src="data:image/jpeg;base64,', shown)) == 4
    assert "<script" not in shown and "&lt;script&gt;" in shown
    assert all(name in shown for name in found.ids) and len(shown) < 60_000
    lines = repr(found).splitlines()
    assert len(lines) == 5 and all(name in line for name, line in zip(found.ids, lines[1:], strict=True))
    assert [row["id"] for row in found.rows()] == found.ids


def test_evaluate_gives_the_numbers_of_the_command(opened, store):
    views = "single@32,multi@16x4"
    rows = opened.evaluate(views, split="train")
    own = judge(load_config(None, ["data.eval_split=train"]), store, parse_views(views))
    assert rows == own and len(repr(rows).splitlines()) == 3 and rows._repr_html_().count("<tr>") == 3
    assert "train" not in Config().data.eval_split


def test_mine_writes_the_triples_of_the_command(opened, store, tmp_path):
    settings = ["mine.filters=[{duplicates: true}]", "mine.k=10", "mine.view=multi@16"]
    made = opened.mine(tmp_path / "a.jsonl", *settings)
    own = mine(load_config(None, ["device=cpu", *settings]), store, tmp_path / "b.jsonl")
    assert made.read_text() == own.read_text() != ""


def test_what_is_wrong_is_said(opened, tmp_path):
    for wrong, said in (
        (lambda: opened.search("blue", k=0), "k: 0"),
        (lambda: opened.search("blue", view="multi@63"), "was not trained"),
        (lambda: opened.search(""), "nothing left of it"),
        (lambda: opened.evaluate(split="dev"), "no split 'dev'"),
        (lambda: colmrl.open_store(tmp_path), "not a store"),
        (lambda: colmrl.open_store(opened.path, settings=["index.candidate=3"]), "candidates"),
        (lambda: colmrl.open_store(opened.path, checkpoint=tmp_path).search("blue"), "not a colmrl checkpoint"),
    ):
        with pytest.raises(InputError, match=said):
            wrong()
