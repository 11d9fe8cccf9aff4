"""Pictures: found, opened upright, in RGB."""

from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from colmrl.errors import InputError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def is_image_path(text: str) -> bool:
    """Whether a triple's `pos` or `neg` names a picture rather than being text."""
    return "\n" not in text and Path(text).suffix.lower() in IMAGE_SUFFIXES


def open_image(path: str) -> Image.Image:
    """The picture at `path` as RGB, turned as its EXIF says, transparency laid on white."""
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, (255, 255, 255, 255))
                return Image.alpha_composite(white, image).convert("RGB")
            return image.convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{path}: no such image: check the path") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image ({error}): replace it or take its record out") from None
