"""Rows of mteb's data sets as records: what the model is shown is what our reader and mteb's own loaders show."""

import io
import json
from pathlib import Path

import pytest
from datasets import Dataset, Image
from mteb._create_dataloaders import _retrieval_texts
from mteb.types import PromptType
from PIL import Image as Pillow

from colmrl.data.beir import read_beir
from colmrl.data.media import open_image
from colmrl.errors import InputError
from colmrl.evaluation.mteb_records import documents_of, queries_of


def test_rows_become_the_records_that_our_reader_reads(tmp_path):
    corpus = [("1", "A title", " text "), ("2", "", "only text"), ("3", "Only a title", "")]
    (tmp_path / "qrels").mkdir()
    lines = [json.dumps({"_id": name, "title": title, "text": text}) for name, title, text in corpus]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "what?"}')
    rows = Dataset.from_dict(dict(zip(("id", "title", "text"), map(list, zip(*corpus, strict=True)), strict=True)))
    ours = read_beir(tmp_path)
    found = documents_of(rows, ["text"], tmp_path)
    assert found[:] == ours.documents[:]
    assert [one.body for one in found] == list(_retrieval_texts(rows, PromptType.document))
    assert [one.body for one in documents_of(rows, ["image"], tmp_path)] == ["", "", ""]
    with pytest.raises(InputError, match="id '1' is there twice"):
        documents_of(Dataset.from_dict({"id": ["1", "1"], "text": ["a", "b"]}), ["text"], tmp_path)


@pytest.mark.parametrize(
    "columns",
    [
        {"text": ["what?", "who"]},
        {"text": ["what?", "who"], "instruction": ["find it", "find them"]},
        {"text": [["what?", "where?"], ["who"]]},
        {
            "text": [[{"role": "user", "content": "what?"}], [{"role": "user", "content": "who"}]],
            "instruction": ["i", "j"],
        },
    ],
    ids=["plain", "instruction", "turns", "roles"],
)
@pytest.mark.filterwarnings("ignore:Conversations are a list")
def test_queries_are_worded_as_mteb_words_them(columns, tmp_path):
    rows = Dataset.from_dict({"id": ["1", "2"], **columns})
    assert [query.text for query in queries_of(rows, ["text"], tmp_path)] == list(
        _retrieval_texts(rows, PromptType.query)
    )


def test_pictures_held_as_bytes_are_written_once_as_they_are(tmp_path):
    held = io.BytesIO()
    Pillow.new("RGBA", (4, 3), (255, 0, 0, 0)).save(held, "PNG")
    (tmp_path / "page.png").write_bytes(held.getvalue())
    images = [{"bytes": held.getvalue(), "path": None}, {"bytes": None, "path": str(tmp_path / "page.png")}, None]
    rows = Dataset.from_dict({"id": ["a", "b", "c"], "image": images, "text": ["", "", "t"]}).cast_column(
        "image", Image()
    )
    found = documents_of(rows, ["image", "text"], tmp_path / "pictures")
    written, named = found[0].images[0], found[1].images[0]
    assert named == str(tmp_path / "page.png") and found[2].images == ()
    assert Path(written).read_bytes() == held.getvalue() and found[0].images == (written,)
    assert open_image(written).getpixel((0, 0)) == (255, 255, 255)
    assert [path.is_file() for path in (tmp_path / "pictures").rglob("*")].count(True) == 1
    assert documents_of(rows, ["text"], tmp_path / "none")[0].images == () and not (tmp_path / "none").exists()
