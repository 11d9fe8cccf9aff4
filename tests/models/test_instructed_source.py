"""Qwen3-VL-Embedding's layout on a tiny model: known by its chat template, embedded as its published script does."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModel

from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.models.processors import processor_class
from colmrl.models.retriever import Retriever, read_description

TEMPLATE = (
    "{%- set default_system_message = 'Represent the user\\'s input.' -%}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory) -> Path:
    out = shutil.copytree(tiny("qwen3_vl"), tmp_path_factory.mktemp("instructed") / "model")
    (out / "chat_template.jinja").write_text(TEMPLATE)
    return out


def test_it_is_known_by_its_template_and_nested_from_64_on(folder):
    description = read_description(folder)
    assert description.single.dims == (128, 64) and description.single.pooling == "last" and not description.multi.dims
    assert description.model.max_pixels == 1800 * 32 * 32 and description.model.generation_prompt


def test_its_vectors_are_those_of_its_script(folder, tmp_path):
    picture = tmp_path / "a.png"
    Image.effect_noise((48, 80), 60).convert("RGB").save(picture)  # of whole patches: not resized
    model = Retriever.load(folder).eval()
    with torch.inference_mode():
        queries = model(model.inputs.queries([Query("1", "a red circle"), Query("2", "blue")])).single
        documents = [Document("1", "a star", images=(str(picture),)), Document("2", images=(str(picture),))]
        made = torch.cat([queries, model(model.inputs.documents(documents)).single])

    processor = processor_class("qwen3_vl").from_pretrained(folder, backend="pil")
    theirs = AutoModel.from_pretrained(folder).eval()
    asked = "Retrieve images or text relevant to the user's query."
    seen, stands_for = "<|vision_start|><|image_pad|><|vision_end|>", "Represent the user's input."
    for vector, instruction, content in zip(
        made,
        [asked, asked, stands_for, stands_for],
        ["a red circle", "blue", f"{seen}a star", seen],
        strict=True,
    ):
        text = f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{content}<|im_end|>\n"
        images = [Image.open(picture)] if seen in content else None
        inputs = processor(text=[text + "<|im_start|>assistant\n"], images=images, return_tensors="pt")
        with torch.inference_mode():
            last = theirs(**inputs).last_hidden_state[0, -1]
        torch.testing.assert_close(vector, torch.nn.functional.normalize(last, dim=-1), atol=2e-6, rtol=0)


def test_without_that_template_it_is_a_bare_backbone(tiny):
    with pytest.raises(InputError, match="a bare backbone"):
        read_description(tiny("qwen3_vl"))


def test_its_folder_with_modules_is_read_by_them(folder, tmp_path):
    out = shutil.copytree(folder, tmp_path / "model")
    names = ["base.modules.transformer.Transformer", "sentence_transformer.modules.pooling.Pooling"]
    names += ["base.modules.normalize.Normalize"]
    paths = ["", "1_Pooling", "2_Normalize"]
    lines = [{"path": p, "type": f"sentence_transformers.{name}"} for p, name in zip(paths, names, strict=True)]
    (out / "modules.json").write_text(json.dumps(lines))
    template = {"chat_template": {"add_generation_prompt": True}}
    config = {"modality_config": {"message": {"format": "structured"}}, "processing_kwargs": template}
    (out / "sentence_bert_config.json").write_text(json.dumps(config))
    (out / "1_Pooling").mkdir()
    (out / "1_Pooling" / "config.json").write_text('{"pooling_mode": "lasttoken"}')
    prompts = {"prompts": {"query": "Find it.", "document": ""}}
    (out / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    model = read_description(out).model
    assert model.query_instruction == "Find it." and model.document_instruction is None and model.generation_prompt
    assert model.max_pixels is None and read_description(out).single.pooling == "last"
