"""Pictures are prepared, and patches embedded, as transformers does it: the same numbers."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from colmrl.models.patches import Resizing, embed_by_product
from colmrl.models.processors import load_processor

SIZES = [(64, 64), (300, 420), (31, 17), (1000, 40)]  # width × height: as it is, made smaller, larger, long


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_pictures_cut_at_once_are_the_processors_own_to_the_bit(family, tiny):
    ours = load_processor(str(tiny(family)), 48**2, None, "pil").image_processor
    theirs = Qwen2VLImageProcessorPil.from_pretrained(tiny(family), size=dict(ours.size))
    pages = [picture(*size) for size in SIZES]
    for given in (*[[page] for page in pages], pages, [pages], [picture(40, 90, "L")], [np.asarray(pages[1])]):
        found, expected = ours(given, return_tensors="pt"), theirs(given, return_tensors="pt")
        assert found.keys() == expected.keys()
        assert torch.equal(found["pixel_values"], expected["pixel_values"])
        assert torch.equal(found["image_grid_thw"], expected["image_grid_thw"])


@pytest.mark.parametrize("tiles", [1, 5])
def test_pictures_cut_into_tiles_at_once_are_the_processors_own_to_the_bit(tiles, tiny):
    ours = load_processor(str(tiny("internvl")), tiles * 64**2, None, "pil").image_processor
    theirs = GotOcr2ImageProcessorPil.from_pretrained(tiny("internvl"), max_patches=tiles)
    pages = [picture(*size) for size in SIZES]
    for given in (*[[page] for page in pages], pages):
        for cropped in (False, True):
            found, expected = (one(given, return_tensors="pt", crop_to_patches=cropped) for one in (ours, theirs))
            assert found.keys() == expected.keys()
            assert torch.equal(found["pixel_values"], expected["pixel_values"])
            assert torch.equal(found["num_patches"], expected["num_patches"])


@pytest.mark.parametrize("resample", [Image.Resampling.BICUBIC, Image.Resampling.BILINEAR])
@pytest.mark.parametrize("size", [(64, 48), (448, 672), (1200, 900), (300, 419)])
def test_pixels_resized_by_torch_are_at_most_a_level_off_pillows(size, resample):
    page = picture(300, 420).resize((600, 800))  # smooth, as pages are
    found, expected = (Resizing(page, resample, by)(*size).astype(int) for by in ("torch", "pil"))
    assert found.shape == expected.shape == (size[1], size[0], 3)
    assert abs(found - expected).max() == 1 and (found != expected).mean() < 0.03


def test_where_one_side_grows_and_the_other_shrinks_pillow_begins_with_the_other():
    """Each pass rounds and clips to 8 bits, so that the order tells."""
    page = picture(300, 420).resize((600, 800))
    found, other = (Resizing(page, Image.Resampling.BICUBIC, by)(900, 300).astype(int) for by in ("torch", "pil"))
    lower, wider = ((600, 300), (900, 800))
    first = [
        page.resize(size, Image.Resampling.BICUBIC).resize((900, 300), Image.Resampling.BICUBIC)
        for size in (lower, wider)
    ]
    low, wide = (np.asarray(one).astype(int) for one in first)
    assert abs(found - wide).max() <= 1 < abs(found - low).max() and np.array_equal(other, low)


def test_what_torch_does_not_resize_and_what_is_not_resized_are_pillows():
    page = picture(300, 420)
    for size, resample in (((64, 48), Image.Resampling.LANCZOS), ((300, 420), Image.Resampling.BICUBIC)):
        assert np.array_equal(Resizing(page, resample, "torch")(*size), np.asarray(page.resize(size, resample)))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "internvl"])
def test_a_processor_resizes_as_it_is_told(family, tiny):
    """torch: of the interpolation that torchvision calls, rescaled and normalised by the formula."""
    page = picture(300, 420)
    ours, pillows = (load_processor(str(tiny(family)), 64**2, None, by).image_processor for by in ("torch", "pil"))
    found, other = (one([page], return_tensors="pt")["pixel_values"] for one in (ours, pillows))
    level = 1 / 255 / min(ours.image_std)
    assert 0 < (found - other).abs().max() < 1.01 * level and ((found - other).abs() > 1e-6).float().mean() < 0.02
    if family == "internvl":
        pixels = torch.from_numpy(np.array(page)).permute(2, 0, 1)[None]
        small = F.interpolate(pixels, (64, 64), mode="bicubic", antialias=True)[0].permute(1, 2, 0).double() / 255
        expected = (small - torch.tensor(ours.image_mean)) / torch.tensor(ours.image_std)
        torch.testing.assert_close(found[0].permute(1, 2, 0).double(), expected, atol=1e-6, rtol=0)


def test_what_is_asked_otherwise_is_done_otherwise(tiny):
    ours = load_processor(str(tiny("qwen2_5_vl")), None, None).image_processor
    theirs = Qwen2VLImageProcessorPil.from_pretrained(tiny("qwen2_5_vl"))
    page = picture(64, 48)
    for asked in ({"do_normalize": False}, {"do_resize": False}, {"image_mean": 0.5, "image_std": 0.5}):
        found, expected = (one([page], return_tensors="np", **asked) for one in (ours, theirs))
        assert np.array_equal(found["pixel_values"], expected["pixel_values"])


def test_a_processor_that_cuts_at_once_is_saved_as_what_it_was(tiny, tmp_path):
    load_processor(str(tiny("qwen2_5_vl")), None, None).save_pretrained(tmp_path)
    assert (tmp_path / "processor_config.json").read_text() == (
        tiny("qwen2_5_vl") / "processor_config.json"
    ).read_text()


def test_a_patch_embedded_by_a_product_is_the_convolution_of_it():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(3, 8, (2, 14, 14), stride=(2, 14, 14)))
    names, patches, whole = [*model.state_dict()], torch.randn(5, 3, 2, 14, 14), torch.randn(1, 3, 4, 28, 28)
    expected, of_whole = model(patches), model(whole)
    embed_by_product(model)
    assert torch.allclose(model(patches), expected, atol=1e-6) and model(patches).shape == expected.shape
    assert torch.equal(model(whole), of_whole)  # of several patches, still a convolution
    assert [*model.state_dict()] == names
