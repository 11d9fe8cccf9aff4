import hashlib
import io
import pickle
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from colmrl.data import media
from colmrl.data.media import content_hash, open_image, picture_bytes, picture_size, stamp
from colmrl.errors import InputError


def saved(folder, name, image, **options):
    image.save(folder / name, **options)
    return str(folder / name)


def test_transparent_pictures_are_laid_on_white(tmp_path):
    path = saved(tmp_path, "a.png", Image.new("RGBA", (2, 2), (255, 0, 0, 0)))
    assert open_image(path).getpixel((0, 0)) == (255, 255, 255)
    path = saved(tmp_path, "b.png", Image.new("LA", (2, 2), (0, 51)))  # a fifth of black
    assert open_image(path).getpixel((0, 0)) == (204, 204, 204)
    path = saved(tmp_path, "c.png", Image.new("RGB", (2, 2), (9, 8, 7)), transparency=(9, 8, 7))
    assert open_image(path).getpixel((0, 0)) == (255, 255, 255)


def palette_picture():
    image = Image.new("P", (2, 1))
    image.putpalette([250, 10, 20, 30, 240, 50])
    image.putpixel((1, 0), 1)
    return image


def test_palettes_are_looked_up_with_and_without_transparency(tmp_path):
    opened = open_image(saved(tmp_path, "a.png", palette_picture()))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(250, 10, 20), (30, 240, 50)]
    for name in ("b.png", "b.gif"):
        opened = open_image(saved(tmp_path, name, palette_picture(), transparency=0))
        assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (30, 240, 50)]


def test_cmyk_pictures_keep_their_colours(tmp_path):
    cmyk = (40, 200, 120, 30)
    expected = [(255 - ink) * (255 - cmyk[3]) / 255 for ink in cmyk[:3]]
    for name in ("a.jpg", "a.tif"):  # the JPEG is stored inverted, with Adobe's marker
        path = saved(tmp_path, name, Image.new("CMYK", (16, 16), cmyk))
        assert open_image(path).getpixel((8, 8)) == pytest.approx(expected, abs=4), name


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    assert open_image(saved(tmp_path, "a.png", Image.new(mode, (3, 3)))).mode == "RGB"


@pytest.mark.parametrize(
    ("name", "values", "white"),
    [
        ("16 bits", np.array([[0, 1000, 30000, 65535]], np.uint16), 65535),
        ("16 bits, dark", np.array([[0, 1000, 2000, 4000]], np.uint16), 65535),
        ("32 bits of 16", np.array([[0, 1000, 30000, 60000]], np.int32), 65535),
        ("32 bits of 8", np.array([[0, 10, 100, 255]], np.int32), 255),
        ("floats to 1", np.array([[0, 0.2, 0.6, 1]], np.float32), 1),
        ("floats beyond 1", np.array([[0, 7, 20, 35]], np.float32), 35),
    ],
)
def test_deep_grey_is_scaled_not_clipped(tmp_path, name, values, white):
    opened = np.asarray(open_image(saved(tmp_path, "a.tif", Image.fromarray(values))))
    assert np.array_equal(opened[..., 0], np.round(values / white * 255)), name
    assert (opened[..., 0] == opened[..., 2]).all()


def test_numbers_without_a_white_are_stretched_from_lowest_to_highest(tmp_path):
    values = np.array([[-100, 0, 300, np.nan]], np.float32)
    opened = np.asarray(open_image(saved(tmp_path, "a.tif", Image.fromarray(values))))
    assert opened[0, :, 0].tolist() == [0, 64, 255, 0]


def test_a_transparent_grey_of_16_bits_is_white(tmp_path):
    path = saved(tmp_path, "a.png", Image.fromarray(np.array([[500, 40000]], np.uint16)), transparency=500)
    assert np.asarray(open_image(path))[0, :, 0].tolist() == [255, round(40000 / 257)]


def test_zero_is_white_where_a_tiff_says_so(tmp_path):
    image = Image.fromarray(np.array([[0, 65535]], np.uint16))
    path = saved(tmp_path, "a.tif", image, tiffinfo={262: 0})
    assert np.asarray(open_image(path))[0, :, 0].tolist() == [255, 0]


def png(header, *chunks):
    """A PNG from its header's fields and its other chunks."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", *header)), *(chunk(*c) for c in chunks), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_png_of_16_bits_a_channel_is_scaled(tmp_path):
    row = b"\0" + struct.pack(">3H", 65535, 32768, 1000)
    (tmp_path / "a.png").write_bytes(png((1, 1, 16, 2, 0, 0, 0), (b"IDAT", zlib.compress(row))))
    assert open_image(str(tmp_path / "a.png")).getpixel((0, 0)) == pytest.approx((255, 127.5, 1000 / 257), abs=1)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.tif", "a.png"])
def test_of_several_frames_the_first_is_opened(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path, name, frames[0], save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as image:
        assert image.n_frames == 2
    assert open_image(path).getpixel((4, 4)) == (255, 0, 0)


def marked():
    """3 wide, 2 high, every pixel another."""
    return Image.fromarray(np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14)


# What EXIF 2.32 says of each orientation: where row 0 and column 0 of what is stored belong.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_pictures_are_turned_upright(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path, name, marked(), exif=exif, **options)
    expected = UPRIGHT[orientation](np.asarray(marked()))
    assert np.array_equal(np.asarray(open_image(path)), expected)
    assert picture_size(path) == (expected.shape[1], expected.shape[0])


def test_exif_after_the_pixels_of_a_png_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    late = (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    (tmp_path / "a.png").write_bytes(png((2, 1, 8, 0, 0, 0, 0), (b"IDAT", zlib.compress(b"\0\0\xff")), late))
    opened = open_image(str(tmp_path / "a.png"))
    assert opened.size == picture_size(str(tmp_path / "a.png")) == (1, 2)
    assert [opened.getpixel((0, y))[0] for y in (0, 1)] == [0, 255]


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"]
)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_broken_exif_does_not_spoil_a_picture(tmp_path, name, exif):
    path = saved(tmp_path, name, Image.new("RGB", (4, 2), (9, 9, 9)), exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert open_image(path).size == picture_size(path) == (4, 2)


def test_an_orientation_that_does_not_exist_is_passed_over(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 77
    assert open_image(saved(tmp_path, "a.jpg", marked(), exif=exif)).size == (3, 2)


def test_huge_pictures_are_refused_and_large_ones_do_not_warn(tmp_path, monkeypatch):
    large = png((10_000, 10_000, 1, 0, 0, 0, 0), (b"IDAT", b""))  # Pillow warns from 89 million pixels on
    (tmp_path / "large.png").write_bytes(large)
    (tmp_path / "huge.png").write_bytes(png((40_000, 10_000, 1, 0, 0, 0, 0), (b"IDAT", b"")))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert picture_size(str(tmp_path / "large.png")) == (10_000, 10_000)
    with pytest.raises(InputError, match=r"huge\.png: too large .*400000000 pixels.*: scale it down"):
        open_image(str(tmp_path / "huge.png"))
    monkeypatch.setattr(media, "MAX_IMAGE_PIXELS", 50_000_000)
    with pytest.raises(InputError, match=r"large\.png: too large \(10000 × 10000 pixels, more than 50000000\)"):
        open_image(str(tmp_path / "large.png"))


def test_an_unreadable_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png: not a readable image \(of no known format\)"):
        open_image(str(tmp_path / "a.png"))
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match=r"empty\.png: not a readable image \(an empty file\)"):
        picture_size(str(tmp_path / "empty.png"))
    with pytest.raises(InputError, match="a folder, not an image"):
        open_image(str(tmp_path))
    with pytest.raises(InputError, match="not a readable image"):
        open_image("a\0.png")
    for read in (open_image, picture_size, picture_bytes, content_hash, stamp):
        with pytest.raises(InputError, match=r"b\.png: no such image"):
            read(str(tmp_path / "b.png"))
        with pytest.raises(InputError, match="no such image"):
            read(str(tmp_path / "a.png" / "c.png"))


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = saved(tmp_path, "a.png", marked())
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(InputError, match=r"a\.png: cannot be read \(Permission denied\): make it readable"):
        open_image(path)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.tif", "a.bmp"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9])
def test_truncated_files_are_refused(tmp_path, name, part):
    path = saved(tmp_path, name, Image.effect_noise((64, 64), 50).convert("RGB"))
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(InputError, match=r"a\.\w+: not a readable image"):
        open_image(path)


def test_lab_pictures_keep_their_colours(tmp_path):
    path = saved(tmp_path, "a.tif", Image.new("LAB", (4, 4), (0, 128, 128)))
    assert max(open_image(path).getpixel((0, 0))) < 3
    path = saved(tmp_path, "b.tif", Image.new("LAB", (4, 4), (136, 209, 198)))  # L* 53, a* 81, b* 70: red
    assert open_image(path).getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=12)


def test_a_large_jpeg_is_decoded_small_but_never_too_small(tmp_path):
    path = saved(tmp_path, "a.jpg", Image.radial_gradient("L").resize((1003, 805)).convert("RGB"))
    whole = open_image(path)
    assert whole.size == (1003, 805)
    sizes = {n: open_image(path, n).size for n in (1, 12_726, 12_727, 50_702, 50_703, 201_500, 300_000, 10**7)}
    assert sizes == {
        1: (126, 101),
        12_726: (126, 101),
        12_727: (251, 202),
        50_702: (251, 202),
        50_703: (502, 403),
        201_500: (502, 403),
        300_000: (1003, 805),
        10**7: (1003, 805),
    }
    small = np.asarray(open_image(path, 50_702), float)
    assert np.abs(small - np.asarray(whole.resize((251, 202), Image.Resampling.BOX), float)).mean() < 1
    assert picture_size(path) == (1003, 805)


def test_a_jpeg_decoded_small_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, "a.jpg", Image.new("RGB", (400, 200)), exif=exif)
    assert open_image(path, 5000).size == (50, 100)


def test_max_pixels_leaves_other_formats_alone(tmp_path):
    assert open_image(saved(tmp_path, "a.png", Image.new("RGB", (400, 200))), 1).size == (400, 200)


def test_a_file_is_identified_by_its_bytes_and_stamped_by_name_and_size(tmp_path):
    path = saved(tmp_path, "a.png", Image.effect_noise((900, 900), 90).convert("RGB"))  # several chunks long
    raw = (tmp_path / "a.png").read_bytes()
    assert len(raw) > 1 << 20
    assert picture_bytes(path) == raw
    assert content_hash(path) == hashlib.sha256(raw).hexdigest()
    assert stamp(path) == ("a.png", len(raw))


def test_size_needs_no_pixels(tmp_path):
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 50).save(buffer, "JPEG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue()[:700])  # the header and a little of the picture
    assert picture_size(str(tmp_path / "a.jpg")) == (64, 48)


def test_pictures_and_videos_are_told_by_their_suffix():
    assert media.is_image_path("a/b.JPG") and not media.is_image_path("a/b.mp4") and not media.is_image_path("x\n.png")
    assert media.is_video_path("a/b.MP4") and not media.is_video_path("a/b.png")


def test_a_picture_in_memory_reads_as_its_file_does(tmp_path):
    ramp = Image.linear_gradient("L").resize((40, 30))
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = ramp.convert("RGBA")
    clear.putalpha(ramp)
    deep = Image.fromarray(np.asarray(ramp).astype(np.uint16) * 200)
    ramp.convert("RGB").save(tmp_path / "turned.jpg", exif=turned)
    ramp.convert("RGB").save(tmp_path / "turned.png", exif=turned)
    clear.save(tmp_path / "clear.png")
    clear.convert("P").save(tmp_path / "clear.gif", transparency=0)
    ramp.convert("CMYK").save(tmp_path / "four.jpg")
    deep.save(tmp_path / "deep.png")
    deep.save(tmp_path / "deep.tif")
    for path in sorted(tmp_path.iterdir()):
        with Image.open(path) as picture:
            held = media.Held.of(picture, "a picture")
        assert open_image(held).tobytes() == open_image(str(path)).tobytes(), path
        assert picture_size(held) == picture_size(str(path))
        again = pickle.loads(pickle.dumps(held))  # as a worker of a DataLoader gets it
        assert open_image(again).tobytes() == open_image(held).tobytes() and again == "a picture"
        assert stamp(again) == stamp(held) and content_hash(again) == content_hash(held)
    assert len({stamp(media.Held.of(Image.open(path), "x")) for path in tmp_path.glob("*.png")}) == 3
    with pytest.raises(InputError, match="a picture: not a readable image"):
        (tmp_path / "cut.jpg").write_bytes((tmp_path / "four.jpg").read_bytes()[:400])
        media.Held.of(Image.open(tmp_path / "cut.jpg"), "a picture")
