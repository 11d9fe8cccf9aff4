"""What the page asks as JSON: the answers are those of `colmrl search`, and whoever asks wrongly is told so."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from driving import asked, sent, served
from PIL import Image
from typer.testing import CliRunner

from colmrl.cli.main import main_app
from colmrl.data.media import open_image
from colmrl.data.records import Query
from colmrl.errors import InputError
from colmrl.reranking.opening import Opened
from colmrl.search import Plan
from colmrl.serving.uploads import MAX_PIXELS, Uploads
from colmrl.showing import answering
from colmrl.showing.answering import answer
from colmrl.showing.explaining import explain, paint
from colmrl.store import EmbeddingStore

TEXT = "red circle and blue ring"
VIEWS = ["single@32", "multi@64", "multi@16x4:binary", "single@128/5+multi@64"]


@pytest.fixture(scope="module")
def config(settings, tmp_path_factory):
    return settings(tmp_path_factory.mktemp("unused"))


@pytest.fixture(scope="module")
def index(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("indexes")
    flags = ["--store", store, "--view", "single@32", "--type", "hnsw", "--out", out, "threads=1"]
    made = CliRunner().invoke(main_app, ["index", *map(str, flags)])
    assert made.exit_code == 0, made.output
    return out / "single-32-hnsw"


@pytest.fixture(scope="module")
def server(config, store, index):
    with served(config, store, [index], "multi@64") as (url, desk):
        yield url, desk


def picture_of(store, sample):
    return sample / "train/images" / f"{EmbeddingStore(store / 'documents').ids[7]}.png"


def upload(url, content):
    status, _, said = sent(url, "POST", "/api/pictures", content, {"Content-Type": "image/png"})
    return status, json.loads(said)


def pixels(said):
    return np.asarray(Image.open(io.BytesIO(said)).convert("RGB"), dtype=int)


@pytest.mark.parametrize("view", [*VIEWS, None])
def test_what_is_found_is_what_colmrl_search_finds(view, server, config, store):
    status, said = asked(server[0], "/api/search", {"query": TEXT, "view": view, "k": 5, "exact": True})
    expected = answer(config, store, Query("query", TEXT), view or "multi@64", k=5)
    assert status == 200 and said["view"] == said["how"] == (view or "multi@64") and said["index"] is None
    assert [one["id"] for one in said["results"]] == [r.document.id for r in expected.results]
    np.testing.assert_allclose(
        [one["score"] for one in said["results"]], [r.score for r in expected.results], atol=1e-6
    )
    assert [one["rank"] for one in said["results"]] == [1, 2, 3, 4, 5]
    assert [one["text"] for one in said["results"]] == [r.document.body for r in expected.results]
    assert all(one["pictures"] == 1 for one in said["results"])
    assert said["ms"]["search"] > 0 and said["ms"]["encode"] > 0 and "rerank" not in said["ms"]


def test_a_picture_finds_what_colmrl_search_finds_with_it(server, config, store, sample):
    path = picture_of(store, sample)
    status, said = upload(server[0], path.read_bytes())
    assert status == 200
    for text in ("", "red"):
        question = {"query": text, "picture": said["picture"], "view": "single@128", "k": 4}
        _, found = asked(server[0], "/api/search", question)
        expected = answer(config, store, Query("query", text, (str(path),)), "single@128", k=4)
        assert [one["id"] for one in found["results"]] == [r.document.id for r in expected.results]
    status, headers, shown = sent(server[0], path=f"/api/pictures/{said['picture']}")
    assert headers["content-type"] == "image/png" and (pixels(shown) == np.asarray(open_image(str(path)))).all()


def test_a_query_is_encoded_once_whatever_the_view(server):
    first, second = (asked(server[0], "/api/search", {"query": "blue star", "view": view})[1] for view in VIEWS[:2])
    assert first["encoded_now"] and not second["encoded_now"] and first["ms"]["encode"] == second["ms"]["encode"]


def test_an_index_is_used_for_its_view_unless_exactness_is_asked_for(server):
    for view, exact, kind in (("single@32", False, "hnsw"), ("single@32/9+multi@64", False, "hnsw"),
                              ("single@32", True, None), ("multi@64", False, None)):  # fmt: skip
        status, said = asked(server[0], "/api/search", {"query": TEXT, "view": view, "exact": exact})
        assert (status, said["index"]) == (200, kind)


def test_every_view_that_is_offered_is_served_at_its_price(server, store, sample):
    documents, (_, about) = EmbeddingStore(store / "documents"), asked(server[0], "/api/views")
    assert about["default"] == "multi@64" and about["documents"] == len(documents) == 48
    assert {one["kind"] for one in about["views"]} == {"kept", "made", "funnel"}
    assert {str(view) for view in documents.views()} < {one["view"] for one in about["views"]}
    assert about["indexes"][0]["view"] == "single@32" and about["indexes"][0]["recall"]["10"] > 0.5
    queries = {json.loads(line)["text"] for line in (sample / "train/queries.jsonl").open()}
    assert len(about["examples"]) == 6 and set(about["examples"]) <= queries
    for one in about["views"]:
        status, said = asked(server[0], "/api/search", {"query": "red", "view": one["view"], "k": 1})
        views = [stage.view for stage in Plan.parse(one["view"]).stages]
        price = sum(view.bytes_per_document(documents.vectors_per_record(view)) for view in views)
        assert status == 200 and len(said["results"]) == 1
        assert said["bytes_per_document"] == one["bytes_per_document"] == pytest.approx(price, abs=0.05)


def test_a_reranker_decides_where_it_is_asked(config, store, monkeypatch):
    class ById:
        name = "by-id"

        def score(self, query, documents):
            return [int(document.id[-1]) for document in documents]

    monkeypatch.setattr(answering, "open_judge", lambda *_: Opened(ById(), None, ""))
    with served(config, store, rerank="somewhere") as (url, _):
        assert asked(url, "/api/views")[1]["reranker"] == "by-id"
        _, said = asked(url, "/api/search", {"query": TEXT, "view": "multi@64", "k": 20})
        digits = [int(one["id"][-1]) for one in said["results"]]
        assert digits == sorted(digits, reverse=True) and said["how"] == "multi@64, reranked by by-id"
        assert said["ms"]["rerank"] >= 0
        _, plain = asked(url, "/api/search", {"query": TEXT, "view": "multi@64", "k": 20, "rerank": False})
        assert plain["how"] == "multi@64" and "rerank" not in plain["ms"]
        assert {one["id"] for one in plain["results"]} == {one["id"] for one in said["results"]}


def test_what_is_laid_over_a_page_is_what_colmrl_search_paints(server, config, store):
    answered = answer(config, store, Query("query", TEXT), "multi@64", k=1)
    result = answered.results[0]
    expected = explain(answered, result)
    status, said = asked(server[0], f"/api/explain/{result.row}?query={TEXT.replace(' ', '+')}&numbers=true")
    assert status == 200 and said["id"] == result.document.id and said["picture"] == 0
    np.testing.assert_allclose(said["similarity"], expected.heats, atol=1e-4)
    assert [token["name"] for token in said["tokens"]] == TEXT.split()
    assert [i for i, token in enumerate(said["tokens"]) if token["telling"]] == expected.telling()
    page = open_image(result.document.images[0])
    laid = [(token, heat, expected.scale) for token, heat in zip(said["tokens"], expected.heats, strict=True)]
    for token, heat, scale in [*laid, (said["mean"], expected.mean, expected.mean_scale)]:
        content = base64.b64decode(token["overlay"].removeprefix("data:image/png;base64,"))
        over = Image.open(io.BytesIO(content)).resize(page.size, Image.Resampling.NEAREST)
        seen = Image.alpha_composite(page.convert("L").convert("RGBA"), over).convert("RGB")
        painted = np.asarray(paint(page, heat, *scale), dtype=int)
        assert np.abs(np.asarray(seen, dtype=int) - painted).max() <= 2
        assert token["max"] == pytest.approx(heat.max(), abs=1e-4) and token["low"] == pytest.approx(scale[0], abs=1e-4)
    assert "similarity" not in asked(server[0], f"/api/explain/{result.row}?query=red")[1]


def test_a_small_picture_is_shown_pixel_by_pixel_and_a_large_one_small(server, store, sample, tmp_path):
    url, desk = server
    row = 7
    status, headers, said = sent(url, path=f"/api/thumbnail/{row}/0")
    assert status == 200 and (pixels(said) == np.asarray(open_image(str(picture_of(store, sample))))).all()
    tag = {"If-None-Match": headers["etag"]}
    assert sent(url, path=f"/api/thumbnail/{row}/0", headers=tag)[0] == 304
    assert sent(url, path=f"/api/thumbnail/{row}/0?size=large", headers=tag)[0] == 200
    Image.new("RGB", (2000, 1000), "teal").save(tmp_path / "page.png")
    _, sent_one = upload(url, (tmp_path / "page.png").read_bytes())
    _, headers, said = sent(url, path=f"/api/pictures/{sent_one['picture']}")
    assert headers["content-type"] == "image/jpeg" and pixels(said).shape == (200, 400, 3)
    assert np.abs(pixels(said) - [0, 128, 128]).max() < 4
    assert desk.thumbnails.known(row, 0, "small") is not None


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"query": " \n"}, "nothing to look for"),
        ({"query": "red", "view": "single@31"}, "was not trained: choose from single@128"),
        ({"query": "red", "view": "single@32/0+multi@64"}, "not a number of documents"),
        ({"query": "red", "view": "x" * 201}, "view: String should have at most 200"),
        ({"query": "red", "k": 101}, "k: Input should be less than or equal to 100"),
        ({"query": "red", "k": "5"}, "k: Input should be a valid integer"),
        ({"query": "red", "top": 5}, "top: Extra inputs are not permitted"),
        ({"query": "x" * 4001}, "query: String should have at most 4000"),
        ({"picture": "../../etc/passwd"}, "picture: String should match pattern"),
        ({"picture": "0" * 32}, "is not here any more: choose it again"),
        ({"query": "red", "view": "multi@64x999"}, "no document has more than"),
    ],
)
def test_wrong_questions_are_refused_in_a_line(question, says, server):
    status, said = asked(server[0], "/api/search", question)
    assert status == 400 and says in said["error"] and list(said) == ["error"]


def test_what_is_no_json_is_refused(server):
    for body, kind in ((b"{", "application/json"), (b"[]", "application/json"), (b'{"query": "red"}', "text/plain")):
        status, _, said = sent(server[0], "POST", "/api/search", body, {"Content-Type": kind})
        assert status == 400 and "error" in json.loads(said)


def bomb(width, height):
    """A picture whose header promises more than it holds."""
    out = io.BytesIO()
    Image.new("1", (8, 8)).save(out, "PNG")
    content = bytearray(out.getvalue())
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "picture: empty"),
        (b"no picture", "not a readable picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "not a readable picture"),
        (bomb(8000, 7000), f"too large, 8,000 × 7,000 pixels, more than {MAX_PIXELS:,}"),
        (bomb(60000, 60000), "too large"),
        (bomb(64, 64), "not a readable image"),
    ],
    ids=["empty", "text", "eps", "large", "bomb", "torn"],
)
def test_what_is_no_picture_or_too_large_a_one_is_refused_and_not_kept(content, says, server):
    url, desk = server
    before = sorted(desk.uploads._names)
    status, said = upload(url, content)
    assert status == 400 and says in said["error"] and "/tmp" not in said["error"]
    assert sorted(desk.uploads._names) == before


def test_a_picture_that_the_model_refuses_is_said_to_be_so(tmp_path, server, monkeypatch):
    url, desk = server
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    _, said = upload(url, (tmp_path / "red.png").read_bytes())

    def refuse(query):
        raise InputError(f"query 'query': {query.images[0]}: the processor refuses it: absurd")

    monkeypatch.setattr(desk.answerer, "encode", refuse)
    status, said = asked(url, "/api/search", {"picture": said["picture"]})
    assert (status, said["error"]) == (400, "query 'query': picture: the processor refuses it: absurd")


def test_only_the_last_pictures_are_kept_and_in_the_end_none(sample):
    uploads, contents = Uploads(2), [path.read_bytes() for path in sorted((sample / "train/images").iterdir())[:3]]
    a, b = map(uploads.add, contents[:2])
    folder = uploads._path(a).parent
    assert uploads.add(contents[0]) == a  # used last now
    c = uploads.add(contents[2])
    assert {path.name for path in folder.iterdir()} == {a, c} and folder.stat().st_mode & 0o077 == 0
    with pytest.raises(InputError, match="choose it again"):
        uploads.reference(b)
    uploads.close()
    assert not folder.exists()


def test_what_breaks_inside_is_not_told(server, monkeypatch):
    url, desk = server
    monkeypatch.setattr(desk, "search", lambda *_: 1 / 0)
    status, said = asked(url, "/api/search", {"query": "red"})
    assert (status, list(said)) == (500, ["error"]) and "division" not in said["error"]


def test_the_api_describes_itself(server):
    _, said = asked(server[0], "/api/openapi.json")
    expected = {"/api/views", "/api/search", "/api/pictures", "/api/pictures/{name}", "/api/explain/{row}"}
    assert set(said["paths"]) == expected | {"/api/thumbnail/{row}/{number}"}
