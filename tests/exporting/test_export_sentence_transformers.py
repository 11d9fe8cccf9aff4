"""One folder is opened by SentenceTransformer and by MultiVectorEncoder, and both give our vectors."""

import pytest
import torch
from conftest import FAMILIES, VISION
from making import TEXTS, code_of, documents, largest_error, make, ours, shown
from sentence_transformers import MultiVectorEncoder, SentenceTransformer

from colmrl.data.records import Document, Query
from colmrl.errors import InputError
from colmrl.exporting.run import Asked, export
from colmrl.models.retriever import Retriever
from colmrl.scoring import maxsim, truncate

HERE = Asked("sentence-transformers")
CLOSE = 2e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_one_folder_gives_both_heads_vectors(family, tiny, sample, tmp_path, processors_without_video):
    folder = make(tmp_path / "c", tiny(family), "model.tuning=lora")
    of = documents(sample, family in VISION)
    queries, found = ours(folder, of)
    out = str(export(folder, HERE, tmp_path / "e"))
    single, multi = SentenceTransformer(out, device="cpu"), MultiVectorEncoder(out, device="cpu")
    assert (single.get_embedding_dimension(), multi.get_embedding_dimension()) == (128, 64)
    assert single.prompts == multi.prompts == {"query": "Query: ", "document": "Doc: "}
    assert single.similarity_fn_name == "cosine" and multi.similarity_fn_name == "maxsim"
    assert largest_error(single.encode_query(TEXTS, convert_to_tensor=True), queries.single) < CLOSE
    assert largest_error(multi.encode_query(TEXTS), queries.multi.vectors) < CLOSE
    assert largest_error(single.encode_document(TEXTS, convert_to_tensor=True), found.single[:3]) < CLOSE
    for document, vector, vectors in list(zip(of, found.single, found.multi.unpack(), strict=True))[2:]:
        assert largest_error(single.encode_document([shown(document)], convert_to_tensor=True), vector) < CLOSE
        assert largest_error(multi.encode_document([shown(document)]), vectors) < CLOSE


@pytest.mark.parametrize(
    ("pooling", "head"),
    [
        ("mean", ["single.projection=96", "single.dims=[96,32]"]),
        ("last", ["single.projection=96", "single.dims=[48,32]"]),
        ("cls", ["single.dims=[48]"]),
    ],
)
def test_each_pooling_and_projection_keeps_both_dimensions(pooling, head, tiny, sample, tmp_path):
    folder = make(tmp_path / "c", tiny("qwen3"), f"single.pooling={pooling}", "model.attention=bidirectional", *head)
    queries, _ = ours(folder, documents(sample, False))
    out = str(export(folder, HERE, tmp_path / "e"))
    single, multi = SentenceTransformer(out, device="cpu"), MultiVectorEncoder(out, device="cpu")
    assert single.get_embedding_dimension() == queries.single.shape[1] and multi.get_embedding_dimension() == 64
    assert largest_error(single.encode_query(TEXTS, convert_to_tensor=True), queries.single) < CLOSE
    assert largest_error(multi.encode_query(TEXTS), queries.multi.vectors) < CLOSE


def test_truncated_vectors_are_the_view(tiny, tmp_path):
    folder = make(tmp_path / "c", tiny("bert"))
    queries, _ = ours(folder, documents(tmp_path, False))
    single = SentenceTransformer(str(export(folder, HERE, tmp_path / "e")), device="cpu", truncate_dim=32)
    cut = single.encode_query(TEXTS, convert_to_tensor=True, normalize_embeddings=True)
    assert largest_error(cut, truncate(queries.single, 32)) < CLOSE


def test_scores_are_ours_by_meanmaxsim(tiny, tmp_path):
    folder = make(tmp_path / "c", tiny("bert"))
    queries, found = ours(folder, documents(tmp_path, False))
    out = str(export(folder, HERE, tmp_path / "e"))
    model = MultiVectorEncoder(out, device="cpu", similarity_fn_name="meanmaxsim")
    scores = model.similarity(model.encode_query(TEXTS), model.encode_document(TEXTS))
    assert torch.allclose(scores, maxsim(queries.multi, found.multi), atol=CLOSE)


def test_a_text_is_cut_where_ours_is(tiny, tmp_path):
    limits = ["model.max_query_tokens=6", "model.max_document_tokens=9"]
    folder = make(tmp_path / "c", tiny("bert"), *limits)
    queries, found = ours(folder, documents(tmp_path, False))
    model = MultiVectorEncoder(str(export(folder, HERE, tmp_path / "e")), device="cpu")
    assert largest_error(model.encode_query(TEXTS), queries.multi.vectors) < CLOSE
    assert largest_error(model.encode_document(TEXTS), found.multi.vectors) < CLOSE
    assert max(map(len, model.encode_document(TEXTS))) == 9


def test_special_tokens_and_what_follows_a_text_are_as_ours(tiny, sample, tmp_path, processors_without_video):
    prompts = ['model.query_prompt="Find {text} now"', 'model.document_prompt="{text}"']
    folder = make(tmp_path / "c", tiny("qwen2_vl"), *prompts)
    model = Retriever.load(folder).eval()
    text = "a <|im_end|> and <|image_pad|> in it"
    theirs = SentenceTransformer(str(export(folder, HERE, tmp_path / "e")), device="cpu")
    for role, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        build = {"query": model.inputs.queries, "document": model.inputs.documents}[role]
        with torch.no_grad():
            expected = model(build([Query("q", text) if role == "query" else Document("d", text)])).single
        assert largest_error(encode([text], convert_to_tensor=True), expected) < CLOSE


def test_a_checkpoint_with_one_head_is_opened_by_its_class(tiny, tmp_path):
    multi = make(tmp_path / "m", tiny("bert"), "single.dims=[]")
    queries, found = ours(multi, documents(tmp_path, False))
    model = MultiVectorEncoder(str(export(multi, HERE, tmp_path / "me")), device="cpu")
    assert largest_error(model.encode_document(TEXTS), found.multi.vectors) < CLOSE
    assert model.get_embedding_dimension() == 64
    single = make(tmp_path / "s", tiny("bert"), "multi.dims=[]")
    queries, _ = ours(single, documents(tmp_path, False))
    model = SentenceTransformer(str(export(single, HERE, tmp_path / "se")), device="cpu")
    assert largest_error(model.encode_query(TEXTS, convert_to_tensor=True), queries.single) < CLOSE


def test_a_text_model_whose_prompt_goes_on_after_the_text_is_refused(tiny, tmp_path):
    folder = make(tmp_path / "c", tiny("bert"), 'model.query_prompt="{text} ?"')
    with pytest.raises(InputError, match=r"model\.query_prompt: ' \?' follows the text"):
        export(folder, HERE, tmp_path / "e")
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize("family", ["bert", "internvl"])
def test_the_card_s_code_runs(family, tiny, tmp_path, monkeypatch, capsys, processors_without_video):
    folder = export(make(tmp_path / "c", tiny(family)), HERE, tmp_path / "e")
    monkeypatch.chdir(folder)
    blocks = code_of(folder)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {})
    assert capsys.readouterr().out.count("tensor(") == 2
