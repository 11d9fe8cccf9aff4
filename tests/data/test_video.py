import logging
import struct
import sys
from fractions import Fraction

import av
import pytest
from PIL import Image

from colmrl.data import video
from colmrl.data.media import content_hash, open_image, picture_bytes, picture_size, stamp
from colmrl.data.video import frame_references, read_frame
from colmrl.errors import InputError


def write_video(path, shown_ms, codec="mpeg4", b_frames=0, key_every=5, size=(64, 48)):
    """Frame k, of grey level 12·k, is shown at `shown_ms[k]`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 4_000_000
        stream.gop_size, stream.codec_context.max_b_frames = key_every, b_frames
        if codec != "mpeg2video":
            stream.codec_context.time_base = Fraction(1, 1000)
        for k, ms in enumerate(shown_ms):
            frame = av.VideoFrame.from_image(Image.new("RGB", size, (12 * k,) * 3))
            frame.pts, frame.time_base = ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def steady(count):
    return [100 * k for k in range(count)]


def numbers(path, n):
    """Which frames of the video `read_frame` gives, told by their grey level."""
    return [round(read_frame(path, i, n).getpixel((20, 20))[0] / 12) for i in range(n)]


def by_formula(shown_ms, n, end_ms):
    """The last frame shown at or before the centre of each of n equal parts."""
    span = end_ms - shown_ms[0]
    centres = [shown_ms[0] + (i + 0.5) * span / n for i in range(n)]
    return [max(k for k, ms in enumerate(shown_ms) if ms <= centre) for centre in centres]


KINDS = [("mp4", "mpeg4", 0), ("mp4", "mpeg4", 2), ("mkv", "mpeg4", 2), ("avi", "mpeg4", 2), ("ts", "mpeg2video", 2)]


@pytest.mark.parametrize(("suffix", "codec", "b_frames"), KINDS)
@pytest.mark.parametrize("n", [1, 3, 8])
def test_frames_are_those_at_the_centres_of_equal_parts(tmp_path, suffix, codec, b_frames, n):
    path = write_video(tmp_path / f"a.{suffix}", steady(20), codec, b_frames)
    assert numbers(path, n) == by_formula(steady(20), n, 2000)


def test_a_variable_frame_rate_is_sampled_by_time_not_by_number(tmp_path):
    shown = [0, 40, 80, 120, 160, 1000, 1040, 2500, 2540, 4000]
    for suffix, last_ms in (("mp4", 0), ("mkv", 100)):
        path = write_video(tmp_path / f"a.{suffix}", shown, key_every=3)
        with av.open(path) as container:
            ends = [(p.pts + p.duration) * p.time_base for p in container.demux(video=0) if p.size and p.duration]
        end_ms = float(max(ends, default=Fraction(4000 + last_ms, 1000))) * 1000
        for n in (4, 7):
            expected = by_formula(shown, n, end_ms)
            assert numbers(path, n) == expected, suffix
            assert expected != [(2 * i + 1) * 10 // (2 * n) for i in range(n)], "by number would be another answer"


def test_a_video_that_begins_late_is_sampled_from_its_first_frame(tmp_path):
    shown = [5000 + ms for ms in steady(12)]
    path = write_video(tmp_path / "a.mkv", shown)
    assert numbers(path, 4) == by_formula(shown, 4, 6200)


def test_short_videos_repeat_frames(tmp_path):
    path = write_video(tmp_path / "a.mp4", steady(3))
    assert numbers(path, 8) == by_formula(steady(3), 8, 300) == [0, 0, 0, 1, 1, 2, 2, 2]
    assert numbers(write_video(tmp_path / "b.mp4", [0]), 3) == [0, 0, 0]


def test_a_bare_stream_without_times_is_sampled_by_number(tmp_path):
    path = write_video(tmp_path / "a.mp4", steady(10), "mpeg2video")
    bare = tmp_path / "a.m2v"
    with av.open(path) as container:
        bare.write_bytes(b"".join(bytes(packet) for packet in container.demux(video=0)))
    with av.open(str(bare)) as container:
        assert container.duration is None or container.streams.video[0].duration is None
    assert numbers(str(bare), 5) == by_formula(steady(10), 5, 1000)


def test_a_container_that_cannot_seek_there_is_read_from_its_beginning(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", steady(20), b_frames=2)
    pick, begun = video._pick, []

    def late(path, wanted, start):
        begun.append(start)
        return {} if start else pick(path, wanted, start)

    monkeypatch.setattr(video, "_pick", late)
    assert numbers(path, 6) == by_formula(steady(20), 6, 2000)
    assert None in begun


def turned(path, quarter_turns):
    """Write the matrix of a clockwise turn into an MP4's track header."""
    matrix = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[quarter_turns]
    a, b, c, d = (value << 16 for value in matrix)
    raw = bytearray(path.read_bytes())
    at = raw.index(b"tkhd") + 4 + 40
    assert raw[at : at + 4] == struct.pack(">i", 1 << 16)
    raw[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(raw)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_frames_are_turned_as_the_container_says(tmp_path, quarter_turns):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        image = Image.new("RGB", (64, 32))
        image.paste((255, 255, 255), (0, 0, 32, 16))  # the top left quarter is white
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    turned(path, quarter_turns)
    for i in range(3):  # also frames that were sought
        frame = read_frame(str(path), i, 3)
        expected = image.rotate(-90 * quarter_turns, expand=True)
        assert frame.size == expected.size == picture_size(f"{path}#frame={i}/3")
        difference = [
            abs(a - b) for a, b in zip(frame.convert("L").tobytes(), expected.convert("L").tobytes(), strict=True)
        ]
        assert sum(difference) / len(difference) < 8


def test_files_that_are_no_video_are_named(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all\n" * 50)
    with av.open(str(tmp_path / "sound.mp4"), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=1024)
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    write_video(tmp_path / "whole.mp4", steady(5))
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])  # the index of an MP4 stands at its end
    said = {
        "empty": r"not a readable video \(an empty file\)",
        "text": "not a readable video",
        "sound": "has no video stream",
        "cut": "not a readable video|has no video stream",
        "absent": "no such video",
    }
    for name, problem in said.items():
        with pytest.raises(InputError, match=rf"{name}\.mp4: ({problem}).*: \w+"):
            read_frame(str(tmp_path / f"{name}.mp4"), 0, 2)
    with pytest.raises(InputError, match="no such video"):
        stamp(f"{tmp_path}/absent.mp4#frame=0/2")


def test_a_video_cut_short_is_sampled_from_what_is_there_and_says_so(tmp_path, caplog):
    whole = write_video(tmp_path / "a.mkv", steady(20), key_every=1, size=(256, 256))
    cut = tmp_path / "cut.mkv"
    raw = (tmp_path / "a.mkv").read_bytes()
    cut.write_bytes(raw[: len(raw) // 2])
    with caplog.at_level(logging.WARNING):
        there = numbers(str(cut), 4)
    assert there == sorted(there) and 5 < there[-1] < 12
    assert "cut.mkv: has 0." in caplog.text or "cut.mkv: has 1." in caplog.text
    assert "of the 2.0 s that it promises" in caplog.text
    assert numbers(whole, 4) == [2, 7, 12, 17]


def test_a_playlist_does_not_pass_for_a_video(tmp_path):
    (tmp_path / "a.mp4").write_text("#EXTM3U\n#EXTINF:10,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError, match=r"not a readable video|has no video stream"):
        read_frame(str(tmp_path / "a.mp4"), 0, 1)


def test_without_pyav_the_remedy_is_named(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", steady(2))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"a\.mp4: .*PyAV.*: pip install av"):
        open_image(f"{path}#frame=0/2")
    assert stamp(f"{path}#frame=0/2")[0] == "a.mp4#frame=0/2"


def test_a_video_is_decoded_once_for_all_its_frames(tmp_path, monkeypatch):
    paths = [write_video(tmp_path / f"{name}.mp4", steady(6)) for name in "ab"]
    opened = []
    times = video._times
    monkeypatch.setattr(video, "_times", lambda path: opened.append(path) or times(path))
    for i in range(4):
        for path in paths:
            open_image(frame_references(path, 4)[i]).paste((1, 2, 3), (0, 0, 64, 48))  # the caller may change it
    assert opened == paths
    assert numbers(paths[0], 4) == by_formula(steady(6), 4, 600)
    write_video(tmp_path / "a.mp4", steady(9))
    assert numbers(paths[0], 4) == by_formula(steady(9), 4, 900), "a file that was replaced is read anew"


def test_frames_are_named_measured_and_told_apart(tmp_path):
    path = write_video(tmp_path / "a.mp4", steady(4))
    references = frame_references(path, 3)
    assert references == (f"{path}#frame=0/3", f"{path}#frame=1/3", f"{path}#frame=2/3")
    assert picture_size(references[0]) == open_image(references[0]).size == (64, 48)
    assert stamp(references[1]) == ("a.mp4#frame=1/3", (tmp_path / "a.mp4").stat().st_size)
    assert len({content_hash(reference) for reference in references}) == 3
    copied = tmp_path / "b.mp4"
    copied.write_bytes((tmp_path / "a.mp4").read_bytes())
    assert picture_bytes(f"{copied}#frame=1/3") == picture_bytes(references[1])
    with pytest.raises(InputError, match="no frame 3 of 3"):
        open_image(f"{path}#frame=3/3")
    with pytest.raises(InputError, match="at least one"):
        frame_references(path, 0)
