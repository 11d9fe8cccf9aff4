"""A question by hand: what is ranked, what is painted where, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from colmrl.checking.sheet import Typesetter
from colmrl.cli.main import main_app
from colmrl.data.records import Document, Query
from colmrl.encoding import encode
from colmrl.errors import InputError
from colmrl.models.positions import Grid
from colmrl.models.retriever import Retriever
from colmrl.showing import explaining
from colmrl.showing.answering import answer
from colmrl.showing.explaining import explain, on_page, paint, picture_of
from colmrl.store import EmbeddingStore
from colmrl.view import View

QUERY = Query("query", "red circle and blue ring")


@pytest.fixture(scope="module")
def stores(tmp_path_factory, settings, sample):
    """family → (configuration, store of 24 pictures, kept as the overrides say)."""
    root = tmp_path_factory.mktemp("stores")

    def make(family="internvl", name="full", *overrides):
        folder = root / family
        config = settings(folder / "run", f"data.path={sample}/test", *overrides, family=family)
        if not (folder / "checkpoint").is_dir():
            model = Retriever.create(config)
            model.save(folder / "checkpoint")
        return config, encode(config, folder / "checkpoint", sample / "test", folder / name)

    return make


@pytest.mark.parametrize("grid", [Grid(3, 5), Grid(1, 1), Grid(4, 8, 4), Grid(8, 12, 4)], ids=str)
def test_a_cell_has_the_similarity_of_the_tokens_that_see_it(grid):
    positions, longest = grid.positions(), max(grid.rows, grid.columns)
    similarity = torch.randn(2, len(positions), generator=torch.Generator().manual_seed(0))
    heats = on_page(similarity, positions)
    assert heats.shape == (2, grid.rows, grid.columns)
    count = grid.rows * grid.columns
    for row in range(grid.rows):
        for column in range(grid.columns):
            centre = torch.tensor([row + 0.5, column + 0.5]) / longest
            half = torch.full((len(positions), 2), 0.5 / longest)
            if grid.tile:
                half[count:] = torch.tensor([grid.rows, grid.columns]) / grid.tile / longest / 2
            see = ((positions - centre).abs() < half + 1e-6).all(1)
            assert see.sum() == (2 if len(positions) > count else 1)
            assert heats[:, row, column].tolist() == similarity[:, see].amax(1).tolist()


def test_the_hottest_pixels_are_those_of_the_cell_with_the_largest_similarity():
    vectors = torch.nn.functional.normalize(torch.randn(15, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    query = vectors[8:9] + 0.1  # what token 8 sees, in row 1 and column 3
    heat = on_page(query @ vectors.T, Grid(3, 5).positions())[0]
    painted = np.asarray(paint(Image.new("RGB", (100, 60), "white"), heat, float(heat.min()), float(heat.max())))
    assert painted.shape == (60, 100, 3)
    change = 255 * 3 - painted.sum(-1, dtype=int)
    rows, columns = np.nonzero(change == change[30, 70])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 39, 60, 79)
    assert tuple(painted[30, 70]) == tuple(painted[21, 61]) and len(rows) == 400
    coldest = np.unravel_index(heat.argmin(), heat.shape)
    assert change[coldest[0] * 20 + 10, coldest[1] * 20 + 10] < change[30, 70]


@pytest.mark.parametrize("family", ["internvl", "qwen3_vl"])
def test_what_is_painted_is_the_dot_product_of_stored_vectors(family, stores):
    config, store = stores(family)
    answered = answer(config, store, QUERY, "multi@64", k=3)
    documents = EmbeddingStore(store / "documents")
    model = answered.model
    tokens = model(model.inputs.queries([QUERY])).multi.vectors.detach()
    names = [model.inputs.tokenizer.decode([i]) for i in model.inputs.queries([QUERY])["input_ids"][0].tolist()]
    own = [i for i, name in enumerate(names) if name.strip() in QUERY.text.split()]
    for result in answered.results:
        explained = explain(answered, result)
        assert explained.names == QUERY.text.split() and len(own) == len(explained.names)
        kept = documents.multi_rows(View.parse("multi@64"), [documents.ids.index(result.document.id)])
        seen = kept.positions[:, 0] >= 0
        similarity = (tokens[own] @ kept.vectors[seen].T).numpy()
        assert explained.heats.shape == (len(own), 4, 4)
        for heat, values in zip([*explained.heats, explained.mean], [*similarity, similarity.mean(0)], strict=True):
            row, column = kept.positions[seen][values.argmax()].numpy() * 4 - 0.5
            assert np.unravel_index(heat.argmax(), heat.shape) == (round(row), round(column))
            np.testing.assert_allclose(heat.max(), values.max(), atol=1e-5)
        sheet = picture_of(answered, result)
        assert sheet.width > 7 * 240 and sheet.height > 240


def test_every_number_of_a_sheet_is_a_similarity_and_its_bar_says_the_scale(stores, monkeypatch):
    config, store = stores()
    answered = answer(config, store, QUERY, "multi@64", k=1)
    heats = explain(answered, answered.results[0]).heats
    written, write = [], Typesetter.write
    monkeypatch.setattr(
        Typesetter,
        "write",
        lambda self, draw, at, line, *ink, **bold: written.append(line) or write(self, draw, at, line, *ink, **bold),
    )
    sheet = picture_of(answered, answered.results[0])
    scales = [(heats.min(), heats.max())] * 5 + [(heats.mean(0).min(), heats.mean(0).max())]
    names = [*QUERY.text.split(), "mean of 5 tokens"]
    panels = zip(names, [*heats.max((1, 2)), heats.mean(0).max()], scales, strict=True)
    expected = [(f"{name}  {best:.2f}", f"{low:.2f}", f"{high:.2f}") for name, best, (low, high) in panels]
    assert [line.strip() for line in written[2:]] == [line for panel in expected for line in panel]
    bar = np.asarray(sheet)[-22 - 8 - 10, 8 + 248 : 248 + 248]  # the first panel that is painted
    assert bar[0, 2] > bar[0, 0] and bar[-1, 0] > bar[-1, 2]  # from blue to red


def test_a_store_that_keeps_less_is_explained_by_encoding_the_document_again(stores):
    found = {}
    for name, views in (("full", ()), ("less", ["encode.views=[single@32,multi@16x4:int8]"])):
        config, store = stores("internvl", name, *views)
        answered = answer(config, store, QUERY, "single@32", k=1)
        found[name] = explain(answered, answered.results[0])
    np.testing.assert_allclose(found["less"].heats, found["full"].heats, atol=1e-5)
    assert found["less"].telling() == found["full"].telling()


@pytest.mark.parametrize("view", ["single@32", "multi@16", "single@128/5+multi@64", None])
def test_documents_are_ranked_by_their_scores(view, stores):
    config, store = stores()
    answered = answer(config, store, QUERY, view, k=4)
    documents, dim = EmbeddingStore(store / "documents"), answered.plan.view.dim
    if answered.plan.view.head == "single":
        (vectors,) = [np.concatenate(list(documents.single(View("single", dim))))]
        asked = answered.embedded.single[0, :dim].numpy()
        scores = vectors @ (asked / np.linalg.norm(asked))
    else:
        asked = torch.nn.functional.normalize(answered.embedded.multi.vectors[:, :dim], dim=1)
        items = [item for part in documents.multi(View("multi", dim)) for item in part.unpack()]
        scores = np.array([(asked @ item.T).amax(1).mean() for item in items])
    if view and "+" in view:
        full = np.concatenate(list(documents.single(View("single", 128)))) @ answered.embedded.single[0].numpy()
        scores[np.argsort(-full)[5:]] = -1
    order = np.argsort(-scores)[:4]
    assert [r.document.id for r in answered.results] == [documents.ids[i] for i in order]
    np.testing.assert_allclose([r.score for r in answered.results], scores[order], atol=1e-5)
    assert [r.rank for r in answered.results] == [1, 2, 3, 4]


def test_of_several_pictures_the_one_with_the_best_match_is_painted(stores, tmp_path):
    config, store = stores()
    answered = answer(config, store, QUERY, k=8)
    images = [result.document.images[0] for result in answered.results]
    document = Document("two", images=(images[-1], images[0]))
    model = answered.model
    with torch.inference_mode():
        vectors = model(model.inputs.documents([document])).multi
    own = list(model.inputs.words(QUERY))
    similarity = (answered.embedded.multi.vectors[own] @ vectors.vectors.T).sum(0)
    similarity[vectors.positions[:, 0] < 0] = -99
    page = int(vectors.positions[similarity.argmax()][0] >= 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explaining, "_document_vectors", lambda *_: vectors)
        assert explain(answered, answered.results[0]).picture == page


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl", "qwen3", "bert"])
def test_the_words_of_a_query_are_its_own_text(family, tiny, settings, tmp_path):
    config = settings(tmp_path / "a", "model.query_prompt='user: {text} user'", family=family)
    inputs = Retriever.create(config).inputs
    words = inputs.words(QUERY)
    ids = inputs.queries([QUERY])["input_ids"][0]
    assert list(words.values()) == QUERY.text.split()
    assert [inputs.tokenizer.decode([int(ids[i])]).strip() for i in words] == QUERY.text.split()


def ask(*arguments):
    return CliRunner().invoke(main_app, ["search", *map(str, arguments), "device=cpu", "threads=1"])


def test_a_question_on_the_command_line(stores, sample, tmp_path):
    _, store = stores()
    flags = ["--store", store, "--k", 3, "--out", tmp_path / "o"]
    asked = ask(*flags, "--query", QUERY.text, "--view", "multi@64", "--explain")
    assert asked.exit_code == 0, asked.stderr
    rows = [json.loads(line) for line in (tmp_path / "o/results.jsonl").read_text().splitlines()]
    for row in rows:
        assert row["query"] == {"text": QUERY.text, "images": []} and row["images"] == [str(rows_image(sample, row))]
        assert row["text"] == "" and rows_image(sample, row).name in asked.stdout
    assert [row["rank"] for row in rows] == [1, 2, 3] and all(row["id"] in asked.stdout for row in rows)
    names = {path.name for path in (tmp_path / "o").iterdir()}
    assert names == {"results.jsonl", "sheet.png", "explain-1.png", "explain-2.png", "explain-3.png"}
    with Image.open(tmp_path / "o/sheet.png") as sheet, Image.open(rows_image(sample, rows[0])) as page:
        pixels, one = np.asarray(sheet.convert("RGB")), np.asarray(page.convert("RGB"))
    assert np.abs(pixels.astype(int) - one[32, 32].astype(int)).sum(-1).min() < 30  # the picture's own colours
    asked = ask(*flags, "--image", rows_image(sample, rows[1]), "--view", "single@128")
    assert asked.exit_code == 0 and not list((tmp_path / "o").glob("explain*"))
    asked = ask(*flags, "--image", rows_image(sample, rows[1]), "--query", "red", "--explain")
    assert asked.exit_code == 0 and (tmp_path / "o/explain-3.png").is_file()


def rows_image(sample, row):
    return sample / "test/images" / f"{row['id']}.png"


def test_wrong_questions_are_refused(stores, sample, tmp_path):
    _, store = stores()
    flags = ["--store", store, "--out", tmp_path / "o", "--query", "red"]

    def refused(says, *more):
        result = ask(*flags, *more)
        assert result.exit_code == 2 and says in result.stderr, result.output

    refused("nothing to look for", "--query", "")
    refused("nothing to look for", "--query", " \n")
    (tmp_path / "text.png").write_text("no picture")
    refused(
        f"--image {tmp_path}/text.png: not a readable image (of no known format): give another",
        "--image",
        tmp_path / "text.png",
    )
    refused("no such file", "--image", tmp_path / "none.png")
    other = shutil.copytree(store.parent / "checkpoint", tmp_path / "other")
    stated = (other / "colmrl.json").read_text()
    (other / "colmrl.json").write_text(stated.replace('"{text}"', '"Q {text}"', 1))
    refused("is not what", "--checkpoint", other)
    refused("not a colmrl checkpoint", "--checkpoint", tmp_path)
    data = shutil.copytree(sample / "test", tmp_path / "data")
    lines = [json.loads(line) for line in (data / "corpus.jsonl").read_text().splitlines()]
    (data / "corpus.jsonl").write_text("".join(json.dumps(line | {"text": "new"}) + "\n" for line in lines))
    refused("is another document now", f"data.path={data}")
    (data / "corpus.jsonl").write_text(json.dumps(lines[0]) + "\n")
    refused("is not there", f"data.path={data}")
    assert not (tmp_path / "o").exists()


def test_texts_have_no_page_to_paint(settings, tmp_path):
    (tmp_path / "data/qrels").mkdir(parents=True)
    rows = {"corpus": {"_id": "a", "text": "red ring"}, "queries": {"_id": "q", "text": "red"}}
    for name, row in rows.items():
        (tmp_path / f"data/{name}.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "data/qrels/train.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    for family, heads in (("internvl", []), ("qwen3", []), ("internvl", ["multi.dims=[]"])):
        folder = tmp_path / f"{family}{len(heads)}"
        config = settings(folder, f"data.path={tmp_path}/data", *heads, family=family)
        Retriever.create(config).save(folder / "checkpoint")
        store = encode(config, folder / "checkpoint", tmp_path / "data", folder / "store")
        answered = answer(config, store, QUERY, k=1)
        with pytest.raises(InputError, match=r"--explain: .*(has no picture|no multi head)"):
            explain(answered, answered.results[0])
