"""Hidden states and logits of a backbone with its head: against transformers' own model, whole, cached and nested."""

import pytest
import torch
from conftest import VISION
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from colmrl.config import LoraConfig, ModelConfig
from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.models.heads import pool
from colmrl.models.language import LanguageModel
from colmrl.models.processors import load_processor
from colmrl.reranking.prompt import Prompts, Segment, join

FAMILIES = [*VISION, "qwen3"]


@pytest.fixture(scope="module")
def parts(tiny, sample):
    """family → the model, and a prompt in parts: a query with a picture; documents of one, none and two."""
    pictures = [str(path) for path in sorted((sample / "test/images").iterdir())]

    def make(family, side=None):
        sees = family in VISION
        prompts = Prompts(load_processor(str(tiny(family)), None, side), ModelConfig(), "Judge.")
        images = [pictures[1:2], [], pictures[2:4]] if sees else [[], [], []]
        query = Query("q", "red circle?", tuple(pictures[:1]) if sees else ())
        first = prompts.tokens(prompts.query(query, prompts.head, "\n"))
        texts = ["blue star", "green ring and a black cross", "yellow"]
        documents = [
            prompts.document(Document(str(i), text, images=tuple(shown)), "it: ", prompts.tail)
            for i, (text, shown) in enumerate(zip(texts, images, strict=True))
        ]
        return LanguageModel.load(str(tiny(family))).eval(), prompts, first, documents

    return make


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_are_those_of_the_librarys_model(family, parts, tiny):
    language, _, first, documents = parts(family)
    loader = AutoModelForImageTextToText if family in VISION else AutoModelForCausalLM
    reference = loader.from_pretrained(tiny(family)).eval()
    whole = join([first, documents[2]])
    theirs = reference(**whole, use_cache=False).logits
    hidden, _ = language.hidden(whole)
    assert torch.allclose(language.logits(hidden), theirs, atol=1e-5)
    assert torch.allclose(language.logits(hidden, [7, 3]), theirs[..., [7, 3]], atol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_after_a_prefix_that_was_read_once_all_is_as_in_one_piece(family, side, parts):
    """Of a query with a picture: text after it counts on from the picture's rows and columns, not from its tokens."""
    language, prompts, first, documents = parts(family, side)
    alone = torch.cat([pool(*language.hidden(join([first, document])), "last") for document in documents])
    past = language.read(first)
    batch = prompts.inputs.join(documents)
    assert torch.allclose(pool(*language.hidden(batch, past), "last"), alone, atol=1e-4)
    assert torch.allclose(pool(*language.hidden(batch, past), "last"), alone, atol=1e-4), "the past was changed"
    if family in VISION and family != "internvl":
        assert int(past.next_position) < past.mask.shape[1]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_what_was_read_in_steps_can_be_gone_on_from_by_several_each(family, parts):
    language, prompts, first, documents = parts(family)
    past = language.read(prompts.inputs.join(documents), language.read(first))
    ends = [prompts.tokens(Segment(text)) for text in ("red", "blue star")]
    found = pool(*language.hidden(prompts.inputs.join(ends * len(documents)), past), "last")
    wholes = [join([first, document, end]) for document in documents for end in ends]
    alone = torch.cat([pool(*language.hidden(whole), "last") for whole in wholes])
    assert torch.allclose(found, alone, atol=1e-4)
    assert torch.allclose(
        past.hidden, torch.cat([pool(*language.hidden(join([first, d])), "last") for d in documents]), atol=1e-4
    )


@pytest.mark.parametrize("family", [*FAMILIES, "bert"])
def test_adapters_go_on_attention_alone_and_change_what_it_gives(family, tiny):
    language = LanguageModel.load(str(tiny(family)), writes=family != "bert")
    language.add_lora(LoraConfig())
    adapted = {name.split(".lora_")[0].rpartition(".")[2] for name, _ in language.named_parameters() if "lora_" in name}
    bert = {"query", "key", "value", "dense"}
    assert adapted == (bert if family == "bert" else {"q_proj", "k_proj", "v_proj", "o_proj"})
    assert not any(
        "intermediate" in name or "visual" in name for name, p in language.named_parameters() if "lora_" in name
    )
    ids = torch.tensor([[5, 6, 7]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    before, _ = language.hidden(inputs)
    for name, parameter in language.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    assert not torch.allclose(language.hidden(inputs)[0], before, atol=1e-3)


def test_a_model_without_a_head_gives_no_answers(tiny, tmp_path):
    with pytest.raises(InputError, match=r"no weights of a language-model head.*classifier"):
        LanguageModel.load(str(tiny("bert")))
    bert = LanguageModel.load(str(tiny("bert")), writes=False)
    assert not bert.causal and LanguageModel.load(str(tiny("qwen3"))).causal
    with pytest.raises(AssertionError, match="sees both ways"):
        bert.read({"input_ids": torch.tensor([[5]]), "attention_mask": torch.tensor([[1]])})
    settings = (tiny("qwen3") / "config.json").read_text()
    for file in tiny("qwen3").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text(
        settings.replace('"tie_word_embeddings": true', '"tie_word_embeddings": false')
    )
    with pytest.raises(InputError, match="no weights of a language-model head"):
        LanguageModel.load(str(tmp_path))
    both_ways = LanguageModel.load(str(tiny("qwen3")), ModelConfig(attention="bidirectional"))
    assert not both_ways.causal
