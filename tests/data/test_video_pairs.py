import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from colmrl.config import DataConfig, ShowConfig
from colmrl.data.media import open_image
from colmrl.data.reading import read_collection, read_training
from colmrl.data.video_pairs import read_video_pairs, write_video_sample
from colmrl.errors import InputError

TEMPLATE = "{title}\n{caption}\nOn screen: {ocr}\nSpoken: {asr}"


def lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    for name, level in (("a", 10), ("b", 200)):
        Image.new("L", (8, 8), level).save(tmp_path / f"{name}.png")
    meta = {
        "video_id": "v1",
        "title": "Title",
        "caption": "caption",
        "images": ["a.png", "b.png"],
        "ocr": "",
        "asr": "hi",
    }
    lines(tmp_path / "video_meta.jsonl", meta, {"video_id": "v2", "images": ["b.png"]})
    pairs = [("find it", "v1"), ("find it", "said in words"), ("v1", "v2"), ("v2", "said in words")]
    lines(tmp_path / "train_data.jsonl", *({"query": q, "target": t} for q, t in pairs))
    lines(tmp_path / "test_data.jsonl", {"query": "other", "target": "v2"})
    return tmp_path


def test_text_to_text_text_to_video_video_to_text_and_video_to_video_are_all_read(folder):
    made = read_video_pairs(folder, TEMPLATE, 4)
    assert made.documents.ids[:2] == ["v1", "v2"] and len(made.documents) == 3
    text = made.documents[2]
    assert text.text == "said in words" and text.id not in ("v1", "v2")
    found = [(e.query.text, e.query.images != (), e.positive.id) for e in made.train_on("train")]
    shown = "Title\ncaption\nSpoken: hi"
    assert found == [("find it", False, "v1"), ("find it", False, text.id), (shown, True, "v2"), ("", True, text.id)]
    assert [e.positive.id for e in made.train_on("test")] == ["v2"]
    assert made.documents[0].text == shown  # the line whose field is empty is left out
    assert [open_image(image).getpixel((0, 0))[0] for image in made.documents[0].images] == [10, 200]


def test_a_video_that_asks_is_neither_its_own_answer_nor_its_own_negative(folder):
    made = read_video_pairs(folder, TEMPLATE, 4)
    assert made.itself == {"v1": "v1", "v2": "v2"}
    _, positives = read_training(DataConfig(path=str(folder)), ShowConfig(video_template=TEMPLATE))
    assert positives["v1"] == {"v1", "v2"} and "v2" in positives["v2"]


def test_frames_of_a_video_file_are_spread_over_it(folder):
    av = pytest.importorskip("av")
    with av.open(str(folder / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for level in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level * 6, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    lines(folder / "video_meta.jsonl", {"video_id": "v1", "video": "clip.mp4"}, {"video_id": "v2", "title": "t"})
    images = read_video_pairs(folder, TEMPLATE, 4).documents[0].images
    levels = [open_image(image).getpixel((32, 32))[0] for image in images]
    assert np.allclose(levels, [5 * 6, 15 * 6, 25 * 6, 35 * 6], atol=8)  # the middles of four quarters


@pytest.mark.parametrize(
    ("file", "row", "says"),
    [
        ("video_meta.jsonl", {"video_id": "v1"}, r"video_meta\.jsonl:3: .*all empty, and no images"),
        (
            "video_meta.jsonl",
            {"video_id": "v1", "title": "x"},
            r"video_meta\.jsonl:3: video_id: 'v1' stands on an earl",
        ),
        ("video_meta.jsonl", {"video_id": "v3", "images": ["no.png"]}, r"video_meta\.jsonl:3: images: no such file"),
        ("video_meta.jsonl", {"video_id": "v3", "video": "no.mp4"}, r"video_meta\.jsonl:3: video: no such file"),
        ("video_meta.jsonl", {"video_id": "v3", "title": 3}, r"video_meta\.jsonl:3: title: 3 is a int"),
        ("train_data.jsonl", {"query": "x"}, r"train_data\.jsonl:5: target: missing"),
        ("train_data.jsonl", {"query": " ", "target": "v1"}, r"train_data\.jsonl:5: query: empty"),
        ("train_data.jsonl", "{", r"train_data\.jsonl:5: line: not JSON"),
    ],
)
def test_a_bad_line_is_said_with_file_line_and_field(folder, file, row, says):
    text = (folder / file).read_text()
    (folder / file).write_text(text + (row if isinstance(row, str) else json.dumps(row)) + "\n")
    with pytest.raises(InputError, match=says):
        read_video_pairs(folder, TEMPLATE, 4)
    assert len(read_video_pairs(folder, TEMPLATE, 4, strict=False).documents) == 3


def test_braces_in_a_field_are_left_as_they_are(folder):
    meta = [{"video_id": "v1", "title": "a {caption} tag", "caption": "c"}, {"video_id": "v2", "asr": "x"}]
    lines(folder / "video_meta.jsonl", *meta)
    made = read_video_pairs(folder, "{title} - {caption}\n{asr}", 4)
    assert made.documents[0].text == "a {caption} tag - c"


def test_a_template_with_an_unknown_field_is_said(folder):
    with pytest.raises(InputError, match=r"show\.video_template: \{plot\}: no such field: choose from title, caption"):
        read_video_pairs(folder, "{plot}", 4)


def test_a_word_that_may_be_a_missing_video_is_noted(folder):
    lines(folder / "train_data.jsonl", {"query": "find it", "target": "v9"})
    assert any("'v9'" in note for note in read_video_pairs(folder, TEMPLATE, 4).notes)


def test_where_both_files_are_absent_the_sample_is_generated_and_said_so(tmp_path, caplog):
    config = DataConfig(path=str(tmp_path / "new"), format="video-pairs")
    with caplog.at_level(logging.WARNING):
        made = read_collection(config.path, config)
    assert "neither train_data.jsonl nor video_meta.jsonl: GENERATED" in caplog.text
    assert len(made.train_on("train")) == 400 and len(made.train_on("test")) == 80
    kinds = {(e.query.id in made.itself, bool(e.positive.images)) for e in made.train_on("train")}
    assert kinds == {(False, False), (False, True), (True, False), (True, True)}
    shared = {q: set(made.judged(s)) for s, q in (("train", 0), ("test", 1))}
    assert not shared[0] & shared[1]
    one = tmp_path / "one"
    one.mkdir()
    lines(one / "train_data.jsonl", {"query": "a", "target": "b"})
    with pytest.raises(InputError, match=r"video_meta\.jsonl: no such file"):  # one of the two is there: no sample
        read_collection(str(one), DataConfig(format="video-pairs"))


def test_the_same_seed_gives_the_same_sample(tmp_path):
    for name in "ab":
        write_video_sample(tmp_path / name, seed=3, videos=6)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert (
        all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files) and len(files) > 20
    )


@settings(deadline=None, max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["video_id", "title", "caption", "images", "video", "ocr", "asr", "query", "target"]),
        st.none() | st.integers() | st.text(max_size=4) | st.lists(st.text(max_size=3) | st.none(), max_size=2),
    )
)
def test_no_line_whatsoever_gives_a_traceback(tmp_path_factory, row):
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("video_meta.jsonl", "train_data.jsonl"):
        lines(folder / name, {"video_id": "v", "title": "t", "query": "q", "target": "v"}, row)
        try:
            lines(
                folder / {"video_meta.jsonl": "train_data.jsonl"}.get(name, "video_meta.jsonl"),
                {"video_id": "v", "title": "t", "query": "q", "target": "v"},
            )
            read_video_pairs(folder, TEMPLATE, 2)
        except InputError as error:
            assert "data.jsonl:" in str(error) or "meta.jsonl:" in str(error)
