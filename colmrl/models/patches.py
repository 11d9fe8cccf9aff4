"""Pictures cut into patches in one pass, and patches embedded by one product of matrices: the same numbers, sooner.

transformers' image processors for Qwen-VL and InternVL make an array of a picture, a picture of it to resize it, an
array again, floats, and only then patches (twice over, for two moments in time). Here 8-bit pixels are cut, and each
becomes its float by looking it up: the processor's own rescaling and normalisation of the 256 values that there are.
Bit-equal, where Pillow resizes (`model.resize: pil`). torch resizes 8-bit pixels five times as fast, which is what the
processors with torchvision call: a level of 256 off Pillow's, in few values, but for pictures of which one side grows
and the other shrinks: Pillow begins with the other side there, and each pass rounds.

A convolution whose kernel is as large as what it is given is a product; torch's takes ten times as long on a CPU.
"""

import importlib
import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from colmrl.config_model import Resize

Levels = Float[np.ndarray, "3 256"]  # what becomes of each value of each colour
Pixels = UInt8[np.ndarray, "height width 3"]
_MODES = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}  # that torch has for 8 bits
_BLOCK = 64  # patches at a time, so that what is made of them stays in a core's cache


def cut_at_once(images: Any, resize: Resize) -> None:
    """Give an image processor that cuts patches or tiles the quick way, under its own name; others stay as they are."""
    kind = type(images)
    quick = _QUICK.get(kind.__module__.rpartition(".")[2])
    if quick is not None:
        images.__class__ = type(kind.__name__, (quick, kind), {"__module__": kind.__module__, "by": resize})


class Resizing:
    """An RGB picture's pixels at other sizes, antialiased."""

    def __init__(self, picture: Image.Image, resample: int, by: Resize):
        self.picture, self.resample, self.by = picture, resample, by

    def __call__(self, width: int, height: int) -> Pixels:
        mode = _MODES.get(Image.Resampling(self.resample))
        if self.by == "pil" or mode is None or self.picture.size == (width, height):
            return np.asarray(self.picture.resize((width, height), self.resample))
        made = F.interpolate(self._pixels, (height, width), mode=mode, antialias=True)
        return made[0].permute(1, 2, 0).numpy()

    @cached_property
    def _pixels(self) -> UInt8[Tensor, "1 3 height width"]:
        return torch.from_numpy(np.array(self.picture)).permute(2, 0, 1)[None]


class _AtOnce:
    """The processor's own way for what is asked otherwise than usual."""

    by: Resize

    def _preprocess_image_like_inputs(self, images: Any, *given: Any, **asked: Any) -> Any:
        base: Any = super()
        flat = base._prepare_images_structure(images)
        usual = not given and all(asked[name] for name in ("do_resize", "do_rescale", "do_normalize"))
        usual = usual and all(isinstance(asked[name], list | tuple) for name in ("image_mean", "image_std"))
        usual = usual and isinstance(asked["resample"], int) and asked["return_tensors"] == "pt"
        if not usual or not all(isinstance(one, Image.Image) and one.mode == "RGB" for one in flat):
            return base._preprocess_image_like_inputs(images, *given, **asked)
        source: Any = importlib.import_module(type(self).__module__)
        factors = asked["rescale_factor"], tuple(asked["image_mean"]), tuple(asked["image_std"])
        return source.BatchFeature(self.cut(flat, _levels(type(self), *factors), source, asked), tensor_type="pt")

    def cut(self, pictures: list[Image.Image], levels: Levels, source: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
        raise NotImplementedError


class _Patches(_AtOnce):
    def cut(self, pictures: list[Image.Image], levels: Levels, source: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
        patch, merge, size = asked["patch_size"], asked["merge_size"], asked["size"]
        limits = {"factor": patch * merge, "min_pixels": size.shortest_edge, "max_pixels": size.longest_edge}
        sizes = [source.smart_resize(picture.height, picture.width, **limits) for picture in pictures]
        grids = np.array([[1, height // patch, width // patch] for height, width in sizes], dtype=np.int64)
        ends = np.cumsum(grids.prod(1))
        pixels = np.empty((ends[-1], 3, asked["temporal_patch_size"], patch * patch), dtype=np.float32)
        for picture, (height, width), out in zip(pictures, sizes, np.split(pixels, ends[:-1]), strict=True):
            put_patches(Resizing(picture, asked["resample"], self.by)(width, height), levels, merge, patch, out)
        return {"pixel_values": pixels.reshape(len(pixels), -1), "image_grid_thw": grids}


class _Tiles(_AtOnce):
    def cut(self, pictures: list[Image.Image], levels: Levels, source: Any, asked: Mapping[str, Any]) -> dict[str, Any]:
        least, most = asked["min_patches"], asked["max_patches"]
        height, width = asked["size"].height, asked["size"].width
        tiles = []
        for picture in pictures:
            resized, (columns, rows) = Resizing(picture, asked["resample"], self.by), (1, 1)
            if asked["crop_to_patches"] and most > 1:
                shape = picture.height, picture.width
                columns, rows = source.get_optimal_tiled_canvas(shape, (height, width), least, most)
            whole = resized(columns * width, rows * height)
            cut = whole.reshape(rows, height, columns, width, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, height, width)
            if len(cut) > 1:
                cut = np.concatenate([cut, resized(width, height).transpose(2, 0, 1)[None]])
            tiles.append(cut)
        pixels = np.empty((sum(map(len, tiles)), 3, height, width), dtype=np.float32)
        for place, tile in enumerate(itertools.chain(*tiles)):
            for colour, level in enumerate(levels):
                pixels[place, colour] = level.take(tile[colour])
        return {"pixel_values": pixels, "num_patches": [len(cut) for cut in tiles]}


_QUICK = {"image_processing_pil_qwen2_vl": _Patches, "image_processing_pil_got_ocr2": _Tiles}


@lru_cache
def _levels(kind: Any, factor: float, mean: Sequence[float], std: Sequence[float]) -> Levels:
    """What the processor makes of each value of each colour."""
    values = np.tile(np.arange(256, dtype=np.uint8)[:, None], (3, 1, 1))
    processor = kind()
    return processor.normalize(processor.rescale(values, factor), mean, std)[:, :, 0]


def put_patches(
    pixels: np.ndarray, levels: Levels, merge: int, patch: int, out: Float[np.ndarray, "n colours times values"]
) -> None:
    """Of a picture [height, width, 3] in 8 bits: square patches, those that become one token one after another; in
    each, every colour as often as `out` has room for.
    """
    height, width, colours = pixels.shape
    grid = height // patch // merge, merge, patch, width // patch // merge, merge, patch, colours
    cut = pixels.reshape(grid).transpose(0, 3, 1, 4, 6, 2, 5).reshape(-1, colours, patch * patch)
    for start in range(0, len(cut), _BLOCK):
        for colour, level in enumerate(levels):
            looked_up = level.take(cut[start : start + _BLOCK, colour])
            out[start : start + _BLOCK, colour] = looked_up[:, None]


def embed_by_product(model: nn.Module) -> None:
    """Have its 3-D convolutions that are given one patch each time multiply matrices; weights and names stay."""
    for module in model.modules():
        if type(module) is nn.Conv3d and module.groups == 1 and not any(module.padding):
            module.__class__ = _Product


class _Product(nn.Conv3d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if input.shape[2:] != torch.Size(self.kernel_size):
            return super()._conv_forward(input, weight, bias)
        return F.linear(input.flatten(1), weight.flatten(1), bias)[:, :, None, None, None]
