"""`colmrl data check`: on data made here, with faults that are known."""

import itertools
import json
import logging
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoConfig, AutoModel
from typer.testing import CliRunner

from colmrl.checking import check_data
from colmrl.checking.measuring import Spread, TokenCounter, language_parameters, measure, shown
from colmrl.checking.sheet import Typesetter, contact_sheet, draw_rows
from colmrl.cli.common import app
from colmrl.cli.data import data_app
from colmrl.config import Config, ModelConfig
from colmrl.configure import load_config
from colmrl.data.records import Document, Query, Records
from colmrl.errors import InputError
from colmrl.models.inputs import InputBuilder
from colmrl.models.processors import load_processor

VISION = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "internvl")


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_qrels(folder: Path, split: str, rows: list[tuple[str, str, int]]) -> None:
    (folder / "qrels").mkdir(exist_ok=True)
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in rows)]
    (folder / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """d0 = d1 = d2 as texts, p0 = p1 as pictures; d8 and d9 named by nobody."""
    folder = tmp_path / "faulty"
    folder.mkdir()
    for name, colour in (("p0", "red"), ("p1", "red"), ("p2", "blue")):
        Image.new("RGB", (40, 30), colour).save(folder / f"{name}.png")
    texts = ["one  text", "one text ", "one\ntext", "One text", *(f"document {i}" for i in range(4, 10))]
    documents = [{"_id": f"d{i}", "text": text} for i, text in enumerate(texts)]
    pages = [{"_id": name, "image": f"{name}.png", "text": "page"} for name in ("p0", "p1", "p2")]
    write_jsonl(folder / "corpus.jsonl", [*documents, *pages])
    queries = ["first question", "First  Question", "second", "third", "unjudged", "fourth", "fifth"]
    write_jsonl(folder / "queries.jsonl", [{"_id": f"q{i}", "text": text} for i, text in enumerate(queries)])
    train = [("q0", "d0", 1), ("q0", "d4", 0), ("q2", "d5", 1), ("q2", "p0", 2), ("q5", "d6", 0), ("q6", "d3", 1)]
    write_qrels(folder, "train", train)
    # q1 asks what q0 asks, and is answered by d1, a copy of d0; q2 is in both splits; p1 is a copy of p0.
    write_qrels(folder, "test", [("q1", "d1", 1), ("q2", "p2", 1), ("q3", "p1", 1), ("q3", "d7", 1)])
    negatives = [("q0", "d0", ["d4", "d2"]), ("q2", "d5", ["d5"]), ("q6", "d3", ["d4", "d5", "d6"])]
    rows = [{"query": "", "query_id": q, "pos_id": d, "neg_ids": n} for q, d, n in negatives]
    write_jsonl(folder / "triples" / "train.jsonl", rows)
    return folder


def configured(folder: Path, *overrides: str) -> Config:
    return load_config(None, [f"output={folder}/out", f"data.path={folder}", *overrides])


@pytest.fixture
def found(faulty, tiny):
    return check_data(configured(faulty, f"model.backbone={tiny('internvl')}"), faulty / "check")


def test_splits_are_counted(found):
    test, train = found.splits  # as their files' names sort
    assert (train.split, train.queries, train.judgements, train.relevant, train.judged) == ("train", 4, 6, 4, 6)
    assert train.unanswered == ["q5"]
    assert train.negatives == Spread.of([2, 1, 3])
    assert (test.split, test.queries, test.judgements, test.relevant, test.judged) == ("test", 3, 4, 4, 4)
    assert test.unanswered == [] and test.negatives is None


def test_copies_and_what_nobody_judges_are_counted(found):
    queries, documents = found.records
    assert (queries.records, queries.unjudged) == (7, 1)  # "unjudged"
    assert (documents.records, documents.unjudged) == (13, 3)  # d2, d8, d9
    assert (documents.groups, documents.repeated, documents.equal) == (2, 5, [["d0", "d1", "d2"], ["p0", "p1"]])
    assert (queries.groups, queries.repeated, queries.equal) == (1, 2, [["q0", "q1"]])


def test_leakage_is_found_by_id_and_by_content(found):
    by_what = {shared.what: shared for shared in found.leakage}
    assert [(s.count, s.of) for s in by_what.values()] == [(1, 3), (2, 3), (11 - 1, 10), (0, 4), (2, 4), (1, 4)]
    assert by_what["queries, by id"].examples == ["q2"]
    assert by_what["queries, by content"].examples == ["q1 = q0 'First  Question'", "q2 = q2 'second'"]
    assert by_what["relevant documents, by content"].examples == ["d1 = d0", "p1 = p0"]
    pairs = by_what["different pairs of query and relevant document, by content"]
    assert pairs.examples == ["q1 → d1"]
    said = "\n".join(found.attention)
    assert "1 queries without a relevant document: q5" in said and "q1 → d1" in said
    assert "5 documents are the same as another, in 2 groups: d0 = d1 = d2; p0 = p1" in said


def test_negatives_that_answer_are_named(found):
    (line,) = [line for line in found.attention if "explicit negatives" in line]
    assert line.endswith("2 explicit negatives are, or equal, a relevant document: d2 of q0, d5 of q2")


def test_two_data_sets_are_compared_by_content(faulty, tmp_path):
    other = tmp_path / "other"
    write_jsonl(other / "corpus.jsonl", [{"_id": "d0", "text": "new"}, {"_id": "x", "text": "one text"}])
    write_jsonl(other / "queries.jsonl", [{"_id": "q0", "text": "new"}, {"_id": "y", "text": "FIRST question"}])
    write_qrels(other, "test", [("q0", "d0", 1), ("y", "x", 1)])
    found = check_data(configured(faulty, f"data.eval_path={other}"), tmp_path / "check")
    assert [(s.count, s.of) for s in found.leakage] == [(1, 2), (1, 2), (1, 2), (1, 2), (1, 2), (1, 2)]
    assert found.leakage[0].meaning == "0 of them ask the same"  # q0 is another query there
    assert found.leakage[5].examples == ["y → x"]
    assert list(found.sources) == ["data.path", "data.eval_path"]


def test_clean_data_needs_no_attention(tiny, sample, tmp_path):
    paths = [f"data.path={sample}/train", f"data.eval_path={sample}/test", f"model.backbone={tiny('internvl')}"]
    found = check_data(load_config(None, [f"output={tmp_path}", *paths]), tmp_path / "check")
    assert found.attention == [] and sum(shared.count for shared in found.leakage) == 0


@pytest.mark.parametrize("family", VISION)
@pytest.mark.parametrize("max_pixels", [None, 2048, 40_000])
def test_tokens_are_those_that_the_input_builder_makes(family, max_pixels, tiny, tmp_path):
    """Pictures of many sizes, one, two or none a document; texts short, cut, and with special tokens in them."""
    draw = random.Random(0)
    sizes = [(8, 8), (64, 64), (33, 200), (200, 33), (301, 157), (90, 1000), *((draw.randrange(9, 400),) * 2,)]
    images = []
    for number, size in enumerate(sizes):
        images.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", size, (number, 0, 9)).save(images[-1])
    model = replace(ModelConfig(), max_document_tokens=12, max_pixels=max_pixels, document_prompt="page: {text}")
    texts = [
        "",
        "red star",
        "a long text about a blue circle " * 5,
        "an <|im_end|> <img> in it",
        "\n\nnew line",
        "…é漢字",
    ]
    documents = [Document("a", text=text, images=(image,)) for text, image in itertools.product(texts, images)]
    documents += [Document("two", text="both", images=(images[1], images[4])), Document("none", text="no picture")]
    processor = load_processor(str(tiny(family)), max_pixels, None)
    builder = InputBuilder(processor, model)
    found = measure(Records.of(documents), model, TokenCounter(processor, model), 0, "documents")
    for place, document in enumerate(documents):
        ids = builder.documents([document])["input_ids"]
        assert found.inputs[place] == ids.shape[1], document
        assert found.visual[place] == int((ids == processor.image_token_id).sum()), document


@pytest.mark.parametrize("family", ["bert", "qwen3"])
def test_tokens_of_text_models_are_those_that_the_input_builder_makes(family, tiny):
    model = replace(ModelConfig(), max_query_tokens=9, query_prompt="query: {text}")
    queries = [Query(f"{n}", text="red star " * n) for n in range(1, 12)]
    processor = load_processor(str(tiny(family)), None, None)
    found = measure(Records.of(queries), model, TokenCounter(processor, model), 0, "queries")
    lengths = [InputBuilder(processor, model).queries([query])["input_ids"].shape[1] for query in queries]
    whole = InputBuilder(processor, replace(model, max_query_tokens=500))
    assert found.inputs.tolist() == lengths
    assert found.tokens.tolist() == [whole.queries([query])["input_ids"].shape[1] for query in queries]


def test_lengths_and_cuts_are_counted(tiny, tmp_path):
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": f"{n}", "text": " star" * n} for n in (1, 2, 30, 40)])
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": "q", "text": "star"}])
    write_qrels(tmp_path, "train", [("q", "1", 1)])
    overrides = (f"model.backbone={tiny('internvl')}", "model.max_document_tokens=25")
    documents = check_data(configured(tmp_path, *overrides), tmp_path / "check").records[1]
    tokenizer = load_processor(str(tiny("internvl")), None, None).tokenizer
    lengths = [len(tokenizer((" star" * n).strip())["input_ids"]) for n in (1, 2, 30, 40)]
    assert documents.cut == sum(length > 25 for length in lengths) == 2
    assert documents.tokens and documents.tokens.high == max(lengths)
    assert documents.characters and documents.characters.low == len("star")


@pytest.mark.parametrize("family", ["internvl", "qwen3_vl", "bert"])
def test_parameters_are_those_of_the_language_model(family, tiny):
    model = AutoModel.from_pretrained(tiny(family))
    counted = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if not name.startswith(("vision_tower", "visual", "multi_modal_projector"))
        and not name.endswith(("embed_tokens.weight", "word_embeddings.weight"))
    )
    assert language_parameters(str(tiny(family))) == counted
    assert AutoConfig.from_pretrained(tiny(family)).get_text_config().hidden_size == 128


def test_flop_follow_the_formula(found, tiny):
    documents = found.records[1]
    assert documents.flops.median == 2 * language_parameters(str(tiny("internvl"))) * documents.inputs.median


def test_without_a_backbone_characters_are_counted_and_it_is_said(faulty):
    found = check_data(configured(faulty, "model.backbone=/nowhere/model"), faulty / "check")
    assert found.records[1].tokens is None and found.records[1].characters is not None
    assert any("for want of the backbone" in line and "/nowhere/model" in line for line in found.attention)


def test_damaged_pictures_are_named(faulty, tiny):
    (faulty / "p1.png").write_bytes((faulty / "p1.png").read_bytes()[:60])  # the header is whole, the pixels are not
    (faulty / "p2.png").write_bytes(b"not a picture")
    found = check_data(configured(faulty, f"model.backbone={tiny('qwen3_vl')}"), faulty / "check")
    (line,) = [line for line in found.attention if "cannot be opened" in line]
    assert "documents: 2 pictures" in line and "p1.png" in line and "p2.png" in line
    assert found.records[1].equal == [["d0", "d1", "d2"]]  # p1 is no copy any more


def test_what_the_model_cannot_be_shown_is_said(faulty, tiny):
    text_only = check_data(configured(faulty, f"model.backbone={tiny('bert')}"), faulty / "check")
    assert any("documents: 3 with a picture, and the backbone reads text only" in a for a in text_only.attention)
    options = (f"model.backbone={tiny('internvl')}", "model.document_fields=[image]")
    pictures_only = check_data(configured(faulty, *options), faulty / "check")
    assert any("documents: 10 of which nothing is left" in line for line in pictures_only.attention)
    assert pictures_only.records[1].equal == [["p0", "p1"]]  # what shows nothing is no copy


def test_a_picture_that_the_processor_refuses_is_named(faulty, tiny):
    Image.new("RGB", (1, 500)).save(faulty / "p2.png")
    found = check_data(configured(faulty, f"model.backbone={tiny('qwen3_vl')}"), faulty / "check")
    assert any("1 with a picture that the processor refuses: p2 (1×500)" in line for line in found.attention)


def test_lines_that_were_skipped_are_reported(faulty):
    with (faulty / "corpus.jsonl").open("a") as file:
        file.write("no json\n")
    write_qrels(faulty, "test", [("q1", "d1", 1), ("q1", "missing", 1)])
    with pytest.raises(InputError, match="not JSON"):
        check_data(configured(faulty), faulty / "check")
    listeners = len(logging.getLogger("colmrl.data").handlers)
    said = "\n".join(check_data(configured(faulty, "data.strict=false"), faulty / "check").attention)
    assert "corpus.jsonl: skipped 1 bad lines" in said and "unknown id 'missing'" in said
    assert len(logging.getLogger("colmrl.data").handlers) == listeners


def test_a_split_that_is_missing_is_said(faulty):
    only_test = check_data(configured(faulty, "data.train_split=dev"), faulty / "check")
    assert "data.path: has no split 'dev' to train on, only test, train" in only_test.attention
    assert only_test.leakage == [] and (faulty / "check" / "check.png").is_file()
    with pytest.raises(InputError, match="no split 'dev'"):
        check_data(configured(faulty, "data.train_split=dev", "data.eval_split=dev"), faulty / "check")


def test_negatives_come_from_mined_triples(faulty, tmp_path):
    row = {"query": "", "query_id": "q6", "pos_id": "d3", "neg_ids": ["d8", "d9"]}
    write_jsonl(tmp_path / "mined.jsonl", [row])
    found = check_data(configured(faulty, f"data.triples={tmp_path}/mined.jsonl"), tmp_path / "check")
    assert found.splits[1].negatives == Spread.of([2])
    assert not any("explicit negatives" in line for line in found.attention)


def test_the_sheet_shows_each_query_with_its_documents(faulty, tiny):
    found = check_data(configured(faulty, f"model.backbone={tiny('internvl')}"), faulty / "check")
    assert json.loads((faulty / "check" / "check.json").read_text())["splits"][0]["split"] == found.splits[0].split
    with Image.open(faulty / "check" / "check.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert 1000 < pixels.shape[1] < 3000 and 200 < pixels.shape[0] < 6000
    for colour in ((255, 0, 0), (0x1B, 0x6C, 0xA8), (0x1B, 0x78, 0x37), (0xD9, 0x5F, 0x02)):  # p0; query, positive, …
        assert (pixels == colour).all(axis=2).sum() > 1000, colour


def test_rows_are_drawn_by_the_seed_and_random_others_are_never_relevant(sample):
    from colmrl.config import DataConfig
    from colmrl.data.reading import read_training

    examples, positives = read_training(DataConfig(path=str(sample / "train")))
    rows = draw_rows(examples.parts[0], positives, 3)
    assert len({row[0].record.id for row in rows}) == len(rows) == 8
    names = [[cell.record.id for cell in row] for row in rows]
    assert names == [[cell.record.id for cell in row] for row in draw_rows(examples.parts[0], positives, 3)]
    assert names != [[cell.record.id for cell in row] for row in draw_rows(examples.parts[0], positives, 4)]
    for query, *documents in rows:
        for cell in documents:
            assert (cell.role == "positive") == (cell.record.id in positives[query.record.id])
        assert sum(cell.role == "random other" for cell in documents) == 4


def test_characters_without_a_font_are_counted_not_drawn_as_boxes(monkeypatch):
    from matplotlib import font_manager

    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    type_ = Typesetter("a query 上海咖啡 b")
    assert type_.missing == "4 characters of CJK"
    assert type_.wrap("a query 上海咖啡 b", 300, 2) == ["a query ⟨4 CJK⟩ b"]
    assert Typesetter("plain, Привет, γειά").missing == ""


def test_wrapped_text_keeps_every_word_and_the_width():
    text = " ".join(random.Random(0).choices(["word", "a", "longer", "w" * 60], k=60))
    type_ = Typesetter(text)
    lines = type_.wrap(text, 200, 1000)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(type_._fonts[0].getlength(line) <= 200 for line in lines)
    assert type_.wrap(text, 200, 3)[2].endswith("…") and len(type_.wrap(text, 200, 3)) == 3


def test_a_document_with_many_pictures_and_one_with_none_are_drawn(tmp_path):
    Image.new("RGB", (500, 20), "green").save(tmp_path / "a.png")
    from colmrl.checking.sheet import Cell

    many = Document("many", text="text", images=(str(tmp_path / "a.png"),) * 5)
    broken = Document("broken", images=(str(tmp_path / "none.png"),))
    row = [Cell("query", Query("q" * 200, text="x" * 5000)), Cell("positive", many), Cell("random other", broken)]
    sheet, missing = contact_sheet([row], ModelConfig(), "title")
    assert missing == "" and sheet.width > 900
    assert shown(many, replace(ModelConfig(), document_fields=("image",))) == ("", many.images)


def test_the_command_shows_tables_and_what_needs_attention(faulty, tiny):
    main = app("test")
    main.add_typer(data_app, name="data")
    recipe = f"output: {faulty}/out\ndata: {{path: {faulty}}}\nmodel: {{backbone: {tiny('internvl')}}}\n"
    (faulty / "c.yaml").write_text(recipe)
    done = CliRunner().invoke(main, ["data", "check", str(faulty / "c.yaml"), "model.max_query_tokens=2"])
    assert done.exit_code == 0, done.output
    assert "attention: leakage: 1 of the test split's 4 different pairs" in done.stdout
    assert "data.path documents" in done.stdout and (faulty / "out" / "check" / "check.png").is_file()
    (faulty / "qrels" / "test.tsv").write_text("q1\td1\n")
    failed = CliRunner().invoke(main, ["data", "check", str(faulty / "c.yaml")])
    assert failed.exit_code == 2 and "test.tsv:1: line: 2 fields" in failed.stderr
