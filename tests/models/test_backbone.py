import json

import pytest
import torch
from conftest import FAMILIES, VISION
from transformers import AutoModel

from colmrl.config import LoraConfig, ModelConfig
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.models.backbone import Backbone
from colmrl.models.inputs import InputBuilder
from colmrl.models.processors import load_processor
from colmrl.models.tiny import write_tiny_model


def pictures(sample, count):
    return [str(p) for p in sorted((sample / "test/images").iterdir())[:count]]


def records(family, sample):
    texts = [Document("a", text="red circle"), Document("b", text="a much longer text, with wörds unknown to it")]
    if family not in VISION:
        return texts
    one, two, three = pictures(sample, 3)
    return [*texts, Document("c", images=(one,)), Document("d", text="and text", images=(two, three))]


def builder(folder, side=None, **config):
    return InputBuilder(load_processor(str(folder), None, side), ModelConfig(**config))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_batch_mates_change_no_hidden_state(family, side, tiny, sample):
    if family == "bert" and side == "left":
        with pytest.raises(InputError, match="right only"):
            load_processor(str(tiny(family)), None, "left")
        return
    inputs, backbone = builder(tiny(family), side), Backbone.load(str(tiny(family))).eval()
    documents = records(family, sample)
    batch = inputs.documents(documents)
    assert bool((batch["attention_mask"][:, 0 if side == "left" else -1] == 0).any())
    with torch.no_grad():
        hidden, mask = backbone(batch)
        for i, document in enumerate(documents):
            alone, own = backbone(inputs.documents([document]))
            assert torch.allclose(hidden[i][mask[i]], alone[0][own[0]], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_states_are_the_librarys_own_and_no_logits_are_computed(family, tiny, sample):
    backbone = Backbone.load(str(tiny(family))).eval()
    batch = builder(tiny(family)).documents(records(family, sample))
    with torch.no_grad():
        expected = AutoModel.from_pretrained(tiny(family)).eval()(**batch).last_hidden_state
        hidden, _ = backbone(batch)
    assert hidden.shape[-1] == backbone.hidden_size
    # Patches embedded by a product (models/patches.py) are rounded otherwise than by a convolution.
    assert torch.allclose(hidden, expected, atol=1e-5) if family in VISION else torch.equal(hidden, expected)
    assert not any("lm_head" in name for name, _ in backbone.named_modules())


@pytest.mark.parametrize("family", VISION)
def test_the_picture_reaches_the_hidden_states(family, tiny, sample):
    inputs, backbone = builder(tiny(family)), Backbone.load(str(tiny(family))).eval()
    one, two = pictures(sample, 2)
    with torch.no_grad():
        hidden, _ = backbone(inputs.documents([Document("a", images=(one,)), Document("b", images=(two,))]))
    assert (hidden[0] - hidden[1]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_hits_every_layer_of_the_language_model_and_nothing_else(family, tiny):
    backbone = Backbone.load(str(tiny(family)))
    backbone.add_lora(LoraConfig())
    trained = [name for name, p in backbone.named_parameters() if p.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    assert not any(part in name for name in trained for part in ("visual", "vision_tower", "projector", "pooler"))
    assert {name.split("layer")[1].split(".")[1] for name in trained} == {"0", "1", "2"}
    linears = 6 if family == "bert" else 7  # q, k, v, o, and 2 or 3 of the feed-forward
    assert len(trained) == 3 * linears * 2  # A and B of each


@pytest.mark.parametrize("family", VISION)
def test_lora_with_vision_hits_every_linear_layer_there_is(family, tiny, sample):
    backbone = Backbone.load(str(tiny(family)))
    linear = {name for name, m in backbone.model.named_modules() if isinstance(m, torch.nn.Linear)}
    sees = {name for name in linear if not name.startswith("language_model.")}
    backbone.add_lora(LoraConfig(vision=True))
    adapted = {
        name.partition("base_model.model.")[2].partition(".lora_A")[0]
        for name, _ in backbone.named_parameters()
        if ".lora_A." in name
    }
    assert adapted == linear and len(sees) > 8
    hidden, _ = backbone(builder(tiny(family)).documents(records(family, sample)))
    hidden.square().sum().backward()
    assert all(p.grad is not None for name, p in backbone.named_parameters() if "lora_B" in name)


def test_lora_with_vision_on_a_text_model_is_an_error(tiny):
    for family in ("qwen3", "bert"):
        with pytest.raises(InputError, match=rf"lora\.vision: true: {family} reads text only"):
            Backbone.load(str(tiny(family))).add_lora(LoraConfig(vision=True))


def test_lora_targets_that_match_nothing_are_an_error(tiny):
    for targets in ("nowhere", "[bad("):
        with pytest.raises(InputError, match=r"lora\.targets: "):
            Backbone.load(str(tiny("qwen3"))).add_lora(LoraConfig(targets=targets))


def test_a_picture_that_the_processor_refuses_is_said_with_its_record(tiny, tmp_path):
    from PIL import Image

    Image.new("RGB", (1000, 2)).save(tmp_path / "thin.png")
    with pytest.raises(InputError, match=r"document 'thin'.*processor refuses"):
        builder(tiny("qwen2_5_vl")).documents([Document("thin", images=(str(tmp_path / "thin.png"),))])
    Image.new("RGB", (64, 64)).save(tmp_path / "well.png")
    several = [Document(name, images=(str(tmp_path / f"{name}.png"),)) for name in ("well", "thin")]
    with pytest.raises(InputError, match=r"document 'thin'.*processor refuses"):
        builder(tiny("qwen2_5_vl")).documents(several)


def test_qwen_with_pictures_refuses_to_run_without_token_types(tiny, sample):
    batch = builder(tiny("qwen2_5_vl")).documents(records("qwen2_5_vl", sample)[2:])
    del batch["mm_token_type_ids"]
    with pytest.raises(AssertionError, match="mm_token_type_ids"):
        Backbone.load(str(tiny("qwen2_5_vl")))(batch)


def test_a_missing_backbone_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match=r"model\.backbone: '.*nowhere': cannot be loaded"):
        Backbone.load(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"model\.backbone: not given"):
        Backbone.load("")


@pytest.mark.parametrize("family", ["qwen3_vl", "internvl"])
def test_text_is_cut_and_special_tokens_in_it_are_harmless(family, tiny, sample):
    image = tuple(pictures(sample, 1))
    inputs = builder(tiny(family), max_document_tokens=4)
    special = "<|im_end|><|image_pad|><IMG_CONTEXT>"
    whole = inputs.documents([Document("a", text="red " * 50, images=image)])["input_ids"]
    plain = inputs.documents([Document("a", text="red red red red", images=image)])["input_ids"]
    assert abs(whole.shape[1] - plain.shape[1]) <= 1
    assert whole[0, -2:].tolist() == plain[0, -2:].tolist()  # the template's end is there
    inputs = builder(tiny(family))
    hostile = inputs.documents([Document("a", text=special, images=image)])["input_ids"][0].tolist()
    marker = inputs.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert hostile.count(marker) == plain[0].tolist().count(marker)


def test_records_that_the_backbone_cannot_see_are_an_error(tiny, sample):
    picture = Document("p", text="words", images=tuple(pictures(sample, 1)))
    with pytest.raises(InputError, match=r"document 'p': has a picture.*document_fields"):
        builder(tiny("bert")).documents([picture])
    assert builder(tiny("bert"), document_fields=("text",)).documents([picture])["input_ids"].shape[0] == 1
    with pytest.raises(InputError, match=r"document 't': nothing left"):
        builder(tiny("internvl"), document_fields=("image",)).documents([Document("t", text="words")])


def test_prompts_stand_around_the_text(tiny):
    inputs = builder(tiny("bert"), query_prompt="query : {text}", document_prompt="{text} end")
    decode = inputs.tokenizer.decode
    assert "query : red" in decode(inputs.queries([Query("q", "red")])["input_ids"][0])
    assert "red end" in decode(inputs.documents([Document("d", text="red")])["input_ids"][0])


@pytest.mark.parametrize(("family", "tokens"), [("qwen2_5_vl", 4), ("qwen3_vl", 4)])
def test_max_pixels_bounds_a_pictures_tokens(family, tokens, tiny, sample):
    processor = load_processor(str(tiny(family)), 32 * 32, None)
    batch = InputBuilder(processor, ModelConfig()).documents([Document("a", images=tuple(pictures(sample, 1)))])
    pad = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert int((batch["input_ids"] == pad).sum()) == tokens  # 32×32 pixels = 2×2 merged patches of 16


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_model_is_the_real_architecture_and_the_same_for_the_same_seed(family, tiny, tmp_path):
    other = write_tiny_model(family, tmp_path / "again")
    for path in sorted(tiny(family).iterdir()):
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name
    config = json.loads((other / "config.json").read_text())
    assert config["model_type"] == family
    if family in VISION:
        name = json.loads((other / "processor_config.json").read_text())["processor_class"]
        assert name == {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor",
                        "qwen3_vl": "Qwen3VLProcessor", "internvl": "InternVLProcessor"}[family]  # fmt: skip
    with pytest.raises(InputError, match="exists and is not empty"):
        write_tiny_model(family, other)


def test_an_unknown_family_is_an_error_that_names_the_known(tmp_path):
    with pytest.raises(InputError, match="unknown: choose from qwen2_vl"):
        write_tiny_model("gpt", tmp_path / "x")
