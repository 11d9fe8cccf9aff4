"""Positions by the real processors' own grids; skipped, saying so, where they are absent."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from colmrl.config import ModelConfig
from colmrl.data.records import Document
from colmrl.models.inputs import InputBuilder
from colmrl.models.positions import visual
from colmrl.models.processors import load_processor

PROCESSORS = Path(__file__).parents[3] / "shared/processors"
pytestmark = pytest.mark.skipif(not PROCESSORS.is_dir(), reason=f"{PROCESSORS} is not there")


@pytest.mark.parametrize("max_pixels", [None, 200_000])
@pytest.mark.parametrize("size", [(448, 448), (724, 1024), (900, 300)])
@pytest.mark.parametrize("folder", ["qwen2.5-vl-7b", "qwen3-vl-embedding-8b"])
def test_the_token_whose_pixels_hold_a_mark_is_where_the_mark_was_drawn(folder, size, max_pixels, tmp_path):
    processor = load_processor(str(PROCESSORS / folder), max_pixels, None)
    inputs = InputBuilder(processor, ModelConfig())
    width, height = size
    for x, y in ((0.1, 0.2), (0.9, 0.35), (0.5, 0.97)):
        page = Image.new("RGB", size)
        centre = x * width, y * height
        ImageDraw.Draw(page).rectangle([at + by for by in (-3, 3) for at in centre], fill="white")
        page.save(tmp_path / "page.png")
        made = inputs.documents([Document("a", "a page", "", (str(tmp_path / "page.png"),))])
        positions = visual(made["positions"][0])
        patches = made["pixel_values"].reshape(len(positions), processor.image_processor.merge_size**2, -1)
        token = int(patches.amax(-1).amax(-1).argmax())
        _, rows, columns = (made["image_grid_thw"][0] // 2).tolist()
        cell = 1 / max(rows, columns)
        where = torch.tensor([y * rows, x * columns]) * cell
        assert (positions[token] - where).abs().max() <= 0.75 * cell
        assert len(positions) == rows * columns == (made["input_ids"] == processor.image_token_id).sum()
