"""Records that are built one by one and joined are what the family's own processor makes of them together."""

import pytest
import torch
from conftest import FAMILIES, VISION
from PIL import Image

from colmrl.config import ModelConfig
from colmrl.data.records import Document, Query
from colmrl.models import inputs
from colmrl.models.inputs import InputBuilder, tokens
from colmrl.models.processors import load_processor

SIZES = [(64, 64), (200, 60), (64, 128), (90, 70)]


def documents(family, folder):
    texts = [Document("a", text="red circle"), Document("b", text="a much longer text, with wörds unknown to it")]
    if family not in VISION:
        return texts
    images = []
    for number, size in enumerate(SIZES):
        Image.linear_gradient("L").resize(size).convert("RGB").save(folder / f"{number}.png")
        images.append(str(folder / f"{number}.png"))
    one, two, three, four = images
    return [
        Document("c", images=(one,)),
        *texts,
        Document("d", "and text", "", (two, three)),
        Document("e", "", "", (four,)),
    ]


def by_the_processor(builder, records):
    """What one call of the library makes of them."""
    if not builder.sees_pictures:
        return builder.tokenizer([record.text for record in records], padding=True, return_tensors="pt")
    prompts, pictures = [], []
    for record in records:
        content = [{"type": "image"}] * len(record.images)
        content += [{"type": "text", "text": record.text}] if record.text else []
        prompts.append(builder.processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False))
        pictures += [Image.open(image).convert("RGB") for image in record.images]
    return builder.processor(text=prompts, images=pictures or None, padding=True, return_tensors="pt")


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_joined_records_are_the_processors_own_batch(family, side, tiny, tmp_path):
    if (family, side) == ("bert", "left"):
        return  # refused: test_backbone
    builder = InputBuilder(load_processor(str(tiny(family)), None, side), ModelConfig())
    records = documents(family, tmp_path)
    built = builder.each_document(records)
    for some in ([*range(len(records))], [*range(len(records))][::-1], [0, 1], [1]):
        joined, expected = builder.join([built[i] for i in some]), by_the_processor(builder, [records[i] for i in some])
        assert ("positions" in joined) == builder.sees_pictures  # ours: test_positions
        joined.pop("positions", None)
        assert joined.keys() == expected.keys()
        for name in joined:
            assert joined[name].dtype == expected[name].dtype and torch.equal(joined[name], expected[name]), name
    attended = builder.documents(records)["attention_mask"].sum(1).tolist()
    assert [tokens(one) for one in built] == attended and len(set(attended)) > 1


def test_queries_are_cut_where_their_own_limit_is(tiny):
    builder = InputBuilder(load_processor(str(tiny("qwen3")), None, None), ModelConfig(max_query_tokens=3))
    text = "red circle over blue ring"
    assert next(tokens(one) for one in builder.each_query([Query("a", text), Query("b", "red")])) == 3
    assert tokens(builder.each_document([Document("a", text)])[0]) > 3


@pytest.mark.parametrize("family", VISION)
def test_of_large_pictures_few_are_open_at_a_time(family, tiny, tmp_path, monkeypatch):
    builder = InputBuilder(load_processor(str(tiny(family)), None, "right"), ModelConfig())
    records = [one for one in documents(family, tmp_path) * 3 if one.images]  # 4,096, 20,192 and 6,300 pixels
    whole, sizes, processed = builder.each_document(records), [], InputBuilder._processed
    monkeypatch.setattr(InputBuilder, "_processed", lambda *asked: sizes.append(len(asked[1])) or processed(*asked))
    monkeypatch.setattr(inputs, "_TOGETHER_PIXELS", 10_000)
    apart = builder.each_document(records)
    assert sizes == [2, 2, 1, 2, 1, 1]
    assert all(torch.equal(one[name], other[name]) for one, other in zip(whole, apart, strict=True) for name in one)
