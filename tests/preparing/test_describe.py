import json

import pytest

from colmrl.errors import InputError
from colmrl.models.generator import Generator
from colmrl.preparing import describe as module
from colmrl.preparing.describe import PROMPTS, Described, can_describe, describe, describe_all, read_part


@pytest.fixture(scope="module")
def generator(tiny):
    return Generator.load(str(tiny("internvl")))


@pytest.fixture
def items(sample):
    pictures = [str(p) for p in sorted((sample / "test/images").iterdir())[:4]]
    more = [Described("text", "a red circle", ""), Described("nothing", "", "")]
    return [Described(f"i{n}", f"item {n}" if n else "", path) for n, path in enumerate(pictures)] + more


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(module, "MAX_NEW_TOKENS", dict.fromkeys(PROMPTS, 4))


class Stops(Exception):
    pass


def test_captions_need_a_picture_and_summaries_something(items):
    assert [can_describe("caption", item) for item in items] == [True] * 4 + [False] * 2
    assert [can_describe("semantic_summary", item) for item in items] == [True] * 5 + [False]


@pytest.mark.parametrize("form", PROMPTS)
def test_a_run_that_was_killed_goes_on_and_gives_what_an_unbroken_one_gives(
    form, generator, items, tmp_path, monkeypatch
):
    whole = describe(generator, form, items, tmp_path / "whole.jsonl", batch_size=3)
    assert set(whole) == {item.item for item in items if can_describe(form, item)}
    part, asked = tmp_path / "part.jsonl", []

    def killed(prompts, max_new_tokens):
        if asked:
            raise Stops
        asked.append(prompts)
        return write(prompts, max_new_tokens)

    write = generator.write
    with monkeypatch.context() as patch, pytest.raises(Stops):
        patch.setattr(generator, "write", killed)
        describe(generator, form, items, part, batch_size=2)
    assert len(part.read_text().splitlines()) == 2
    with part.open("a") as file:
        file.write('{"item": "i2", "te')
    assert describe(generator, form, items, part, batch_size=1) == whole
    assert part.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    before = part.read_bytes()
    assert describe(generator, form, items, part) == whole and part.read_bytes() == before


def test_prompts_show_the_items_text_and_picture(monkeypatch, generator, items, tmp_path):
    seen = []
    monkeypatch.setattr(generator, "write", lambda prompts, n: [seen.append(p) or "" for p in prompts])
    describe(generator, "semantic_summary", items, tmp_path / "p.jsonl")
    assert seen[1].text.endswith("\n\nitem 1") and seen[1].images == (items[1].image,)
    assert seen[4].text.endswith("\n\na red circle") and not seen[4].images
    assert seen[0].text == PROMPTS["semantic_summary"].replace("{text}", "").strip()


def test_what_is_empty_or_impossible_is_counted_and_named(monkeypatch, generator, items, tmp_path):
    monkeypatch.setattr(generator, "write", lambda prompts, n: ["" if "'i1'" in p.name else "x" for p in prompts])
    counts, problems = {}, []
    written = describe_all(generator, ["caption", "semantic_summary"], items, tmp_path, counts, problems)
    assert written["caption"]["i1"] == "" and len(written["semantic_summary"]) == 5
    assert counts == {
        "caption": {"written": 3, "empty": 1, "nothing_to_go_by": 2},
        "semantic_summary": {"written": 4, "empty": 1, "nothing_to_go_by": 1},
    }
    assert problems[0].startswith("item i1: caption: the model wrote nothing") and len(problems) == 5


def test_a_line_that_is_not_the_part_files_own_is_located(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"item": "a", "text": "b"}) + "\n[1]\n")
    with pytest.raises(InputError, match=r"p\.jsonl:2: line: not one of this file's lines"):
        read_part(tmp_path / "p.jsonl")
    assert read_part(tmp_path / "none.jsonl") == {}
