import gzip
import io
import json
import random
import threading
from collections import Counter
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from colmrl.data.sequences import read_sequences
from colmrl.errors import InputError
from colmrl.preparing import describe, pictures
from colmrl.preparing.amazon import TEXT_WORDS, prepare_amazon
from colmrl.preparing.pictures import Fetching, copy_pictures, download_pictures

QUICK = Fetching(workers=2, timeout_s=2, tries=3, pause_s=0)


def drawn_events(seed=0, users=30, items=20, count=300):
    """(user, item, rating, second): a few users and items have much, many little; days, so that times collide."""
    rng = random.Random(seed)
    return [
        (f"U{min(rng.randrange(users), rng.randrange(users))}", f"I{min(rng.randrange(items), rng.randrange(items))}",
         rng.randint(1, 5), 86_400 * rng.randrange(1_000, 1_040))
        for _ in range(count)
    ]  # fmt: skip


def review(event, release):
    user, item, rating, second = event
    if release == 2023:
        return {"user_id": user, "asin": "v" + item, "parent_asin": item, "rating": rating, "timestamp": second * 1000}
    return {"reviewerID": user, "asin": item, "overall": float(rating), "unixReviewTime": second, "reviewText": "it's"}


def product(item, release, url="http://x/p.jpg"):
    if release == 2014:
        more = {"description": "For <b>hands</b> &amp; feet.", "categories": [["Beauty", "Hands"], ["Other"]]}
        return {"asin": item, "title": f"It's {item}", "brand": "Acme", "imUrl": url, "price": 1.5} | more
    if release == 2018:
        more = {"category": ["Beauty", "Hands"], "description": ["For <b>hands</b>", "&amp; feet."], "feature": []}
        return {"asin": item, "title": f"It's {item}", "brand": "Acme", "imageURLHighRes": [url], "imageURL": []} | more
    more = {"categories": ["Beauty", "Hands"], "description": ["For hands &amp;", "feet."], "features": []}
    images = [{"large": url, "hi_res": None, "thumb": "t"}]
    return {"parent_asin": item, "title": f"It's {item}", "store": "Acme", "images": images} | more


def write(folder, events, release=2014, loose=True, packed=False, without=(), **changes):
    """reviews and meta of a release, as files; returns their paths."""
    dump = repr if release == 2014 and loose else json.dumps
    items = sorted({item for _, item, *_ in events} - set(without))
    texts = {
        "reviews": "".join(json.dumps(review(event, release)) + "\n" for event in events),
        "meta": "".join(dump(product(item, release) | changes.get(item, {})) + "\n" for item in items),
    }
    paths = [folder / (name + (".json.gz" if packed else ".json")) for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    return paths


def core_by_hand(events, rating, least_user, least_item):
    """Take one offending user or item out at a time."""
    left = [event for event in events if event[2] >= rating]
    while True:
        for column, least in ((0, least_user), (1, least_item)):
            few = [name for name, n in Counter(event[column] for event in left).items() if n < least]
            if few:
                left = [event for event in left if event[column] != few[0]]
                break
        else:
            return left


def sequences_of(out):
    return {line.split()[0]: line.split()[1:] for line in (out / "user_sequence.txt").read_text().splitlines()}


def meta_of(out):
    return {row["item"]: row for row in map(json.loads, (out / "item_meta.jsonl").open())}


def manifest_of(out):
    return json.loads((out / "manifest.json").read_text())


@pytest.mark.parametrize(("rating", "least_user", "least_item"), [(1, 5, 5), (3, 6, 6), (2, 4, 9)])
def test_what_is_left_is_the_core_found_one_removal_at_a_time_in_time_order(tmp_path, rating, least_user, least_item):
    events = drawn_events()
    left = core_by_hand(events, rating, least_user, least_item)
    expected = {}
    for user, item, _, _ in sorted(left, key=lambda event: event[3]):  # stable: file order at the same time
        expected.setdefault(user, []).append(item)
    limits = {"min_rating": rating, "min_uc": least_user, "min_sc": least_item}
    out = prepare_amazon(*write(tmp_path, events), tmp_path / "out", **limits)
    assert sequences_of(out) == expected and len(left) not in (0, len(events))
    manifest = manifest_of(out)
    counts = manifest["counts"]
    assert manifest["finished"] and manifest["kind"] == "amazon"
    assert counts["steps"][0] == {
        "step": "read",
        "users": 29,
        "items": 19,
        "interactions": 300,
    }
    assert counts["steps"][1]["interactions"] == sum(event[2] >= rating for event in events)
    assert counts["interactions"] == len(left) == counts["steps"][-1]["interactions"]
    assert counts["repeated_events"] == len(left) - len({event[:2] for event in left}) > 0
    assert set(meta_of(out)) == {event[1] for event in left}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("release", "loose"), [(2014, True), (2014, False), (2018, False), (2023, False)])
def test_all_releases_give_the_same_sequences_and_texts(tmp_path, release, loose, packed):
    out = prepare_amazon(*write(tmp_path, drawn_events(), release, loose, packed), tmp_path / "o", min_uc=5, min_sc=5)
    (tmp_path / "r").mkdir()
    reference = prepare_amazon(*write(tmp_path / "r", drawn_events()), tmp_path / "r/o", min_uc=5, min_sc=5)
    assert sequences_of(out) == sequences_of(reference)
    assert meta_of(out)["I1"] == {
        "item": "I1", "text": "It's I1. Acme. Beauty, Hands. For hands & feet", "image_path": None,
        "caption": None, "semantic_summary": None, "semantic_summary_small": None,
    }  # fmt: skip
    read = read_sequences(out)
    assert len(read.documents) == len(meta_of(out)) and len(read.qrels["test"]) == len(sequences_of(out))


def test_items_without_meta_or_text_show_their_id_and_are_named(tmp_path):
    empty = {"title": None, "brand": "", "description": "", "categories": []}
    paths = write(tmp_path, drawn_events(), without=["I1"], I2=empty, I3={"description": "word " * 500})
    with paths[1].open("a") as file:
        file.write(repr(product("I3", 2014) | {"title": "again"}) + "\n")
    out = prepare_amazon(*paths, tmp_path / "o", min_uc=5, min_sc=5)
    assert meta_of(out)["I1"]["text"] == "I1" and meta_of(out)["I2"]["text"] == "I2"
    assert len(meta_of(out)["I3"]["text"].split()) == TEXT_WORDS
    counts, problems = manifest_of(out)["counts"], manifest_of(out)["problems"]
    named = ("items_without_meta", "items_without_text", "texts_cut", "repeated_meta")
    assert [counts[key] for key in named] == [1, 1, 1, 1]
    assert problems[0].startswith("item I1: no line in") and problems[1].startswith("item I2: neither title nor")
    assert len(problems) == 2 and read_sequences(out).notes[0].startswith(f"{counts['users']} users")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{'asin': ", r":301: line: neither JSON nor a dict"),
        ("[1]", r":301: line: a list, not an object"),
        ('{"reviewerID": "u", "asin": "a", "overall": "5", "unixReviewTime": 1}', r":301: overall: '5' is a str"),
        (
            '{"reviewerID": "u", "asin": "a", "overall": NaN, "unixReviewTime": 1}',
            r":301: overall: nan is not a number",
        ),
        ('{"reviewerID": "u", "asin": "a", "overall": 5}', r":301: unixReviewTime: None is not a number"),
        ('{"reviewerID": "u", "asin": "a b", "overall": 5, "unixReviewTime": 1}', r":301: asin: 'a b' is no id"),
        ('{"asin": "a"}', r":301: user_id: missing"),
        (b"\xff", r":301: line: neither JSON nor a dict"),
    ],
)
def test_a_bad_line_is_located_and_leaves_no_folder(tmp_path, line, says):
    paths = write(tmp_path, drawn_events())
    with paths[0].open("ab") as file:
        file.write(line if isinstance(line, bytes) else line.encode())
    with pytest.raises(InputError, match=r"reviews\.json" + says):
        prepare_amazon(*paths, tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_wrong_input_is_one_line_and_leaves_no_folder(tmp_path):
    reviews, meta = write(tmp_path, drawn_events())
    prepare = partial(prepare_amazon, reviews, meta, tmp_path / "o")
    for wanted, says in (
        ({"min_uc": 200}, r"--min-uc 200, --min-sc 20: nothing is left \(read: 29 users, 19 items; rating"),
        ({"images": tmp_path}, "without --use-image"),
        ({"images": tmp_path / "no", "use_image": True}, "no such folder"),
        ({"generate_caption": True, "vlm": "x"}, "add --use-image"),
        ({"generate_semantic_summary": True}, "--vlm: not given"),
        ({"vlm": "x"}, "--vlm: nothing to write"),
        (
            {"min_uc": 5, "min_sc": 5, "generate_semantic_summary": True, "vlm": str(tmp_path)},
            "--vlm: .*cannot be loaded",
        ),
    ):
        with pytest.raises(InputError, match=says):
            prepare(**wanted)
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError, match="has none of the"):
        prepare_amazon(reviews, write(tmp_path / "other", [("u", "x", 5, 1)])[1], tmp_path / "o", min_uc=1, min_sc=1)
    (tmp_path / "torn.gz").write_bytes(gzip.compress(reviews.read_bytes())[:-12])
    for path, says in ((tmp_path / "torn.gz", r"torn\.gz:\d+: line: broken gzip"), (tmp_path / "none", "no such file")):
        with pytest.raises(InputError, match=says):
            prepare_amazon(path, meta, tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_finished_folder_is_left_as_it_is_and_other_settings_are_refused(tmp_path):
    paths = write(tmp_path, drawn_events())
    out = prepare_amazon(*paths, tmp_path / "o", min_uc=5, min_sc=5)
    before = [(p.name, p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(out.iterdir())]
    assert prepare_amazon(*paths, out, min_uc=5, min_sc=5) == out
    assert before == [(p.name, p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(out.iterdir())]
    with pytest.raises(InputError, match=r"was begun with other min_uc \(5, now 6\)"):
        prepare_amazon(*paths, out, min_uc=6, min_sc=5)


def picture(kind="JPEG", colour="red"):
    content = io.BytesIO()
    Image.new("RGB", (40, 40), colour).save(content, kind)
    return content.getvalue()


class Server(ThreadingHTTPServer):
    """Answers by path; `asked` counts. /flaky fails twice, /torn stops half way, at first or always."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answers)
        self.asked, self.agents, self.broken = Counter(), set(), False
        self.url = f"http://127.0.0.1:{self.server_port}"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        server, body = self.server, picture("PNG" if "png" in self.path else "JPEG")
        server.asked[self.path] += 1
        server.agents.add(self.headers["User-Agent"])
        status, length = 200, len(body)
        if server.broken or (self.path == "/flaky" and server.asked[self.path] < 3):
            status = 503
        elif self.path == "/gone":
            status = 404
        elif self.path == "/page":
            body = b"<html>no picture</html>".ljust(length)
        elif (self.path == "/half" and server.asked[self.path] < 2) or self.path == "/torn":
            body = body[: length // 2]
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_pictures_are_fetched_again_for_failures_that_pass_and_only_those(server, tmp_path):
    paths = {"a": "/a", "p": "/png é", "f": "/flaky", "h": "/half", "g": "/gone", "w": "/page", "t": "/torn"}
    urls = {item: server.url + path for item, path in paths.items()} | {
        "l": "file:///etc/passwd",
        "n": "http://[",
        "e": "x",
    }
    result = download_pictures(urls, tmp_path / "i", QUICK)
    names = {"a": "a.jpg", "p": "p.png", "f": "f.jpg", "h": "h.jpg"}
    assert {item: path.name for item, path in result.paths.items()} == names
    assert sorted(p.name for p in (tmp_path / "i").iterdir()) == sorted(names.values())
    assert all(Image.open(path).size == (40, 40) for path in result.paths.values())
    asked = {"/a": 1, "/png%20%C3%A9": 1, "/flaky": 3, "/half": 2, "/gone": 1, "/page": 1, "/torn": 3}
    assert server.asked == asked and server.agents == {pictures.USER_AGENT}
    assert list(result.problems) == ["g", "w", "t", "l", "n", "e"]
    for item, why in (
        ("g", "404"),
        ("w", "not a readable"),
        ("t", "bytes, 3 times"),
        ("l", "not an http"),
        ("n", "addr"),
    ):
        assert why in result.problems[item]


def test_what_is_there_and_good_is_not_fetched_again(server, tmp_path):
    urls = {item: f"{server.url}/{item}" for item in "abc"}
    download_pictures({"a": urls["a"]}, tmp_path, QUICK)
    (tmp_path / "b.jpg").write_bytes(picture()[:100])
    (tmp_path / "c.partial").write_bytes(b"half")
    server.asked.clear()
    result = download_pictures(urls, tmp_path, QUICK)
    assert server.asked == {"/b": 1, "/c": 1} and result.kept == 1 and len(result.paths) == 3 and not result.problems
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jpg", "b.jpg", "c.jpg"]


def test_where_nothing_answers_it_stops_and_goes_on_later(server, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "Fetching", lambda: QUICK)
    events = drawn_events(items=40, count=600)
    paths = write(tmp_path, events, **{item: {"imUrl": f"{server.url}/{item}"} for _, item, *_ in events})
    prepare = partial(prepare_amazon, *paths, tmp_path / "o", min_uc=2, min_sc=2, use_image=True)
    server.broken = True
    with pytest.raises(InputError, match=r"none of the first 24 could be downloaded \(503 .*run again"):
        prepare()
    assert not manifest_of(tmp_path / "o")["finished"] and not (tmp_path / "o/item_meta.jsonl").exists()
    server.broken = False
    read = read_sequences(prepare(), item_form="raw_image")
    assert len(read.documents) == manifest_of(tmp_path / "o")["counts"]["pictures"]["there"] > 24
    assert read.documents[0].images == (str(tmp_path / f"o/images/{read.documents[0].id}.jpg"),)


def test_pictures_from_a_folder_are_checked_counted_and_named_where_missing(tmp_path):
    source = tmp_path / "pictures"
    source.mkdir()
    (source / "I0.PNG").write_bytes(picture("PNG"))
    (source / "I1.jpg").write_bytes(picture()[:200])
    paths = write(tmp_path, drawn_events())
    out = prepare_amazon(*paths, tmp_path / "o", min_uc=5, min_sc=5, use_image=True, images=source)
    meta, manifest = meta_of(out), manifest_of(out)
    assert [meta[item]["image_path"] for item in ("I0", "I1", "I2")] == ["images/I0.png", None, None]
    assert manifest["counts"]["pictures"] == {"there": 1, "missing": len(meta) - 1}
    assert any("item I1: picture:" in line and "not a readable picture" in line for line in manifest["problems"])
    assert any(f"item I2: picture: no picture in {source}" in line for line in manifest["problems"])
    with pytest.raises(InputError, match="no such folder"):
        copy_pictures(["a"], tmp_path / "none", tmp_path / "i")


def test_captions_and_summaries_of_a_tiny_model_are_what_the_reader_shows(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr(describe, "MAX_NEW_TOKENS", dict.fromkeys(describe.PROMPTS, 3))
    source, events = tmp_path / "pictures", [(f"U{n}", f"I{m}", 5, m) for n in range(3) for m in range(4)]
    source.mkdir()
    for n in range(3):
        (source / f"I{n}.png").write_bytes(picture("PNG", ("red", "green", "blue")[n]))
    wanted = {"use_image": True, "images": source, "generate_caption": True, "generate_semantic_summary": True}
    paths = write(tmp_path, events)
    out = prepare_amazon(*paths, tmp_path / "o", min_uc=2, min_sc=2, vlm=str(tiny("internvl")), **wanted)
    meta, counts = meta_of(out), manifest_of(out)["counts"]
    assert meta["I3"]["caption"] is None and counts["caption"]["nothing_to_go_by"] == 1
    for form in describe.PROMPTS:
        there = {item: row[form] for item, row in meta.items() if row[form]}
        assert len(there) == counts[form]["written"] > 0
        read = read_sequences(out, strict=False, item_form=form)
        assert {document.id: document.text for document in read.documents} == there
