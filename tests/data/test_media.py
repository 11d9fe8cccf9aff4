import pytest
from PIL import Image

from colmrl.data.media import open_image
from colmrl.errors import InputError


def test_transparent_pictures_are_laid_on_white(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert open_image(str(tmp_path / "a.png")).getpixel((0, 0)) == (255, 255, 255)


def test_pictures_are_turned_upright(tmp_path):
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by 90°
    image.save(tmp_path / "a.jpg", exif=exif)
    assert open_image(str(tmp_path / "a.jpg")).size == (2, 4)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "I;16", "1"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (3, 3)).save(path)
    assert open_image(str(path)).mode == "RGB"


def test_an_unreadable_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"a\.png: not a readable image"):
        open_image(str(tmp_path / "a.png"))
    with pytest.raises(InputError, match=r"b\.png: no such image"):
        open_image(str(tmp_path / "b.png"))
    Image.effect_noise((64, 64), 50).save(tmp_path / "c.png")
    (tmp_path / "c.png").write_bytes((tmp_path / "c.png").read_bytes()[:200])
    with pytest.raises(InputError, match=r"c\.png: not a readable image"):
        open_image(str(tmp_path / "c.png"))
