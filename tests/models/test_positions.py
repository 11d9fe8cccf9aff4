"""Where a token's position says that it looks, there the pixels that it sees are."""

import pytest
import torch
from conftest import VISION
from PIL import Image, ImageDraw

from colmrl.data.records import Document
from colmrl.models.positions import TEXT, Grid, by_picture, positions_of, visual
from colmrl.models.retriever import Retriever

PIXELS = 16  # a side of what a token sees, in all tiny models
# Pictures that need no resizing, in tokens (columns, rows); the last one makes tiles where there are any.
SHAPES = {"qwen": [(4, 4), (8, 2), (2, 8)], "tiles": [(4, 4), (8, 4), (4, 12), (12, 8)]}


def shapes_of(family):
    return SHAPES["tiles" if family == "internvl" else "qwen"]


@pytest.fixture
def model(settings, tmp_path):
    def make(family):
        model = Retriever.create(settings(tmp_path / "a", family=family)).eval()
        if family == "internvl":
            model.inputs.processor.image_processor.max_patches = 6
        return model

    return make


def picture(folder, columns, rows, mark=None):
    """Black, with a white square in the middle of one token's cell."""
    image = Image.new("RGB", (columns * PIXELS, rows * PIXELS))
    if mark is not None:
        y, x = (int((cell + 0.5) * PIXELS) for cell in mark)
        ImageDraw.Draw(image).rectangle((x - 4, y - 4, x + 3, y + 3), fill="white")
    path = folder / f"{columns}-{rows}-{mark}.png"
    image.save(path)
    return str(path)


def look_at_nothing_else(model):
    """Every visual token sees its own patch only."""
    for tower in model.backbone.vision_modules:
        for name, module in tower.named_modules():
            if name.rpartition(".")[0].rpartition(".")[2] in ("blocks", "layer"):
                module.forward = lambda hidden, *_, **__: hidden


@pytest.mark.parametrize("family", VISION)
def test_a_token_at_a_mark_is_one_that_sees_the_mark_and_the_others_do_not(family, model, tmp_path):
    retriever = model(family)
    look_at_nothing_else(retriever)
    for columns, rows in shapes_of(family):
        for mark in ((0, 1), (rows - 1, columns - 1), (rows // 2, 0)):
            seen = []
            for marked in (mark, None):
                made = retriever.inputs.each_document(
                    [Document("a", images=(picture(tmp_path, columns, rows, marked),))]
                )
                with torch.no_grad():
                    seen.append(retriever.backbone.image_features(made[0])["image_features"])
            different = (seen[0] - seen[1]).abs().amax(1) > 1e-6
            positions = visual(made[0]["positions"][0])
            grid = Grid.of(positions)
            assert (grid.rows, grid.columns) == (rows, columns)
            expected = (torch.tensor(mark) + 0.5) / max(rows, columns)
            fine = different[: rows * columns]
            assert fine.sum() == 1 and torch.allclose(positions[: rows * columns][fine][0], expected)
            if grid.tile:  # the whole picture once more: the tokens whose cells the mark touches
                size = torch.tensor([rows, columns]) / grid.tile / max(rows, columns)
                away = (positions[rows * columns :] - expected).abs() / size
                assert different[rows * columns :][away.sum(1).argmin()]
                # resizing smears a mark over the next cell, no further
                assert (away[different[rows * columns :]] < 1.5).all()
            assert bool(grid.tile) == (family == "internvl" and (columns, rows) != (4, 4))


@pytest.mark.parametrize("family", VISION)
def test_as_many_tokens_have_a_place_as_are_of_pictures_and_each_picture_its_own(family, model, tmp_path):
    retriever = model(family)
    shapes = shapes_of(family)
    images = tuple(picture(tmp_path, *shape) for shape in shapes)
    made = retriever.inputs.each_document([Document("a", "two words and <|image_pad|><IMG_CONTEXT>", "", images)])[0]
    positions = made["positions"][0]
    is_image = made["input_ids"][0] == retriever.inputs.processor.image_token_id
    assert torch.equal(positions[:, 0] != TEXT, is_image) and (positions[~is_image] == -1).all()
    assert positions.dtype == torch.float32
    pictures = by_picture(positions)
    assert len(pictures) == len(shapes)
    assert torch.equal(torch.cat([tokens for tokens, _ in pictures]), is_image.nonzero()[:, 0])
    for (tokens, on_page), (columns, rows) in zip(pictures, shapes, strict=True):
        assert on_page.min() > 0 and on_page.max() < 1
        grid = Grid.of(on_page)
        assert (grid.rows, grid.columns) == (rows, columns) and torch.allclose(grid.positions(), on_page)
        assert len(tokens) == rows * columns + (grid.tile or 0) ** 2
    assert torch.allclose(pictures[1][1] + torch.tensor([2.0, 0.0]), positions[pictures[1][0]])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["internvl", "qwen3_vl"])
def test_embeddings_carry_positions_whatever_a_batch_is_padded_with(family, side, model, tmp_path):
    retriever = model(family)
    retriever.inputs.tokenizer.padding_side = side
    documents = [
        Document("a", images=(picture(tmp_path, *shapes_of(family)[0]),)),
        Document("b", text="a text, and no picture"),
        Document("c", "more", "", tuple(picture(tmp_path, *shape) for shape in shapes_of(family)[:2])),
    ]
    with torch.inference_mode():
        multi = retriever(retriever.inputs.documents(documents)).multi
    for i, document in enumerate(documents):
        alone = retriever.inputs.each_document([document])[0]["positions"][0]
        assert torch.equal(multi.slice(i, i + 1).positions, alone)
    assert (multi.slice(1, 2).positions == TEXT).all()


def test_a_model_of_texts_has_no_positions(settings, tmp_path):
    retriever = Retriever.create(settings(tmp_path / "a", family="qwen3"))
    assert retriever(retriever.inputs.documents([Document("a", text="red")])).multi.positions is None


def test_positions_are_the_middles_of_patches_in_units_of_the_longer_side():
    expected = [(0.5, 0.5), (0.5, 1.5), (0.5, 2.5), (0.5, 3.5), (1.5, 0.5), (1.5, 1.5), (1.5, 2.5), (1.5, 3.5)]
    assert torch.equal(Grid(2, 4).positions(), torch.tensor(expected) / 4)
    tiles = Grid(2, 4, tile=2).positions() * 4
    order = [(0.5, 0.5), (0.5, 1.5), (1.5, 0.5), (1.5, 1.5), (0.5, 2.5), (0.5, 3.5), (1.5, 2.5), (1.5, 3.5)]
    whole = [(0.5, 1), (0.5, 3), (1.5, 1), (1.5, 3)]
    assert torch.allclose(tiles, torch.tensor(order + whole))
    assert Grid(2, 2, tile=2).positions().tolist() == Grid(2, 2).positions().tolist()


def test_other_numbers_of_tokens_than_positions_are_refused():
    with pytest.raises((RuntimeError, IndexError)):
        positions_of(torch.tensor([[7, 7, 7]]), 7, [Grid(1, 2).positions()])


def test_a_grid_knows_how_many_tokens_lie_on_it():
    for grid in (Grid(3, 5), Grid(2, 2, 2), Grid(4, 6, 2), Grid(1, 1)):
        assert grid.tokens == len(grid.positions())
