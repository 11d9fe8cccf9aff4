import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from colmrl.errors import InputError
from colmrl.models.generator import Generator, Prompt
from colmrl.models.processors import load_processor

FAMILIES = (
    "internvl",
    "qwen2_5_vl",
    "qwen3_vl",
)  # their tiny checkpoints tie the head to the embedding: nothing is missing


def prompts(sample):
    one, two, three = (str(p) for p in sorted((sample / "test/images").iterdir())[:3])
    mixed = [Prompt("a", "red circle"), Prompt("b", "what is it, said at greater length?", (one,))]
    return [*mixed, Prompt("c", "and", (two, three)), Prompt("d", "green ring top left and blue star")]


def by_hand(folder, prompt, steps):
    """Greedy decoding without cache, padding or batch: the whole forward pass for each token."""
    from PIL import Image

    processor = load_processor(str(folder), None, "left")
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    content = [{"type": "image"} for _ in prompt.images] + [{"type": "text", "text": prompt.text}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
    pictures = [Image.open(path).convert("RGB") for path in prompt.images] or None
    batch = dict(processor(text=[text], images=pictures, return_tensors="pt"))
    tokens = []
    for _ in range(steps):
        with torch.no_grad():
            token = int(model(**batch, use_cache=False).logits[0, -1].argmax())
        if token == processor.tokenizer.eos_token_id:
            break
        tokens.append(token)
        for key, value in (("input_ids", token), ("attention_mask", 1), ("mm_token_type_ids", 0)):
            if key in batch:
                batch[key] = torch.cat([batch[key], torch.tensor([[value]])], dim=1)
    return " ".join(processor.tokenizer.decode(tokens, skip_special_tokens=True).split())


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_are_those_of_greedy_decoding_by_hand_whatever_the_batch(family, tiny, sample):
    generator, asked = Generator.load(str(tiny(family))), prompts(sample)
    expected = [by_hand(tiny(family), prompt, 6) for prompt in asked]
    assert generator.write(asked, 6) == expected and any(expected)
    assert [generator.write([prompt], 6)[0] for prompt in asked] == expected
    assert generator.write(asked[::-1], 6) == expected[::-1]


def test_a_checkpoint_without_weights_to_write_with_is_refused(tiny, tmp_path):
    untied = shutil.copytree(tiny("qwen3_vl"), tmp_path / "untied")
    settings = (untied / "config.json").read_text()
    (untied / "config.json").write_text(settings.replace('"tie_word_embeddings": true', '"tie_word_embeddings": false'))
    with pytest.raises(InputError, match=r"--vlm: .*no weights for lm_head\.weight \(1 in all\)"):
        Generator.load(str(untied))
    folder = shutil.copytree(tiny("internvl"), tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if name.endswith("norm.weight"))
    save_file({k: v for k, v in weights.items() if k != gone}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="1 in all"):
        Generator.load(str(folder))


def test_models_that_see_no_pictures_are_refused(tiny, tmp_path):
    for family in ("qwen3", "bert"):
        with pytest.raises(InputError, match=r"--vlm: "):
            Generator.load(str(tiny(family)))
    with pytest.raises(InputError, match=r"--vlm: .*cannot be loaded"):
        Generator.load(str(tmp_path))


def test_a_text_that_holds_special_tokens_opens_no_picture(tiny):
    generator = Generator.load(str(tiny("qwen2_5_vl")))
    assert len(generator.write([Prompt("a", "<|vision_start|><|image_pad|><|vision_end|> circle")], 2)) == 1


def test_a_bad_picture_is_said_with_whose_it_is(tiny, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"item 'x': .*bad\.png"):
        Generator.load(str(tiny("internvl"))).write([Prompt("item 'x'", "", (str(tmp_path / "bad.png"),))], 2)
