import json
import logging
import os
import re
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from colmrl.cli.common import app
from colmrl.cli.prepare_pdf import pdf as pdf_command
from colmrl.data.media import open_image
from colmrl.errors import InputError
from colmrl.preparing import pdf
from colmrl.preparing.pdf import clean_text, prepare_pdf

A5 = (420, 595)  # points


def pdf_bytes(*texts, size=A5, catalog=b"", trailer=b"", broken_page=None):
    """A PDF with a page for each text, which stands in its top left corner above a black square in the bottom left.

    `broken_page`: the page of this number (from 0) is no page object.
    """
    kids = b" ".join(b"%d 0 R" % (4 + 2 * i) for i in range(len(texts)))
    bodies = [b"<</Type/Catalog/Pages 2 0 R%s>>" % catalog, b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(texts))]
    bodies.append(b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>")
    for i, text in enumerate(texts):
        lines = b"".join(b"(%s) Tj 0 -30 Td " % line.encode("cp1252") for line in text.split("\n"))
        content = b"0 0 50 50 re f BT /F1 24 Tf 20 %d Td %sET" % (size[1] - 60, lines)
        page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]/Contents %d 0 R/Resources<</Font<</F1 3 0 R>>>>>>"
        bodies.append(b"null" if broken_page == i else page % (*size, 5 + 2 * i))
        bodies.append(b"<</Length %d>>stream\n%s\nendstream" % (len(content), content))
    out, places = b"%PDF-1.7\n", []
    for number, body in enumerate(bodies, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size_and_root = b"/Size %d/Root 1 0 R" % (len(bodies) + 1)
    end = b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<<%s%s>>\nstartxref\n%d\n%%%%EOF\n"
    return out + end % (len(bodies) + 1, table, size_and_root, trailer, len(out))


ENCRYPTED = pdf_bytes(
    "secret",
    trailer=b"/ID[<00><00>]/Encrypt<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>" % (b"11" * 32, b"22" * 32),
)
LABELS = b"/PageLabels<</Nums[0<</S/r>>2<</S/D>>]>>"  # i, ii, 1, 2, …


@pytest.fixture
def folder(tmp_path):
    """Three PDFs, the first under another folder."""
    root = tmp_path / "in"
    (root / "manuals").mkdir(parents=True)
    (root / "manuals" / "a.pdf").write_bytes(
        pdf_bytes("first page\nof two lines", "naïve café", "third", catalog=LABELS)
    )
    (root / "b.pdf").write_bytes(pdf_bytes("of b"))
    (root / "z.PDF").write_bytes(pdf_bytes("of z", ""))
    (root / "notes.txt").write_text("not a PDF")
    return root


def rows(out):
    return [json.loads(line) for line in (out / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]


def manifest(out):
    return json.loads((out / "manifest.json").read_text(encoding="utf-8"))


def contents(out):
    """All that was written but for the manifest, which holds the command."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def test_each_page_is_a_document_with_its_picture_and_text(tmp_path, folder):
    out = prepare_pdf(folder, tmp_path / "out")
    written = rows(out)
    assert [row["_id"] for row in written] == ["b/1", "manuals/a/1", "manuals/a/2", "manuals/a/3", "z/1", "z/2"]
    assert [row["text"] for row in written] == [
        "of b",
        "first page\nof two lines",
        "naïve café",
        "third",
        "of z",
        "",
    ]
    assert written[2] == {
        "_id": "manuals/a/2",
        "text": "naïve café",
        "title": "",
        "image": "images/manuals/a/2.jpg",
        "meta": {"file": "manuals/a.pdf", "page": 2, "pages": 3, "label": "ii"},
    }
    assert [row["meta"].get("label") for row in written] == [None, "i", "ii", "1", None, None]
    assert all((out / row["image"]).is_file() for row in written)
    assert sorted(path.name for path in out.iterdir()) == ["corpus.jsonl", "images", "manifest.json"]
    counts = {"pdfs": 3, "pages": 6, "pages_without_text": 1}
    counts |= {"encrypted": 0, "broken": 0, "failed_pages": 0, "shrunk": 0}
    assert manifest(out)["finished"] and manifest(out)["counts"] == counts and manifest(out)["problems"] == []


def test_pages_are_rendered_upright_at_the_resolution_asked_for(tmp_path, folder):
    out = prepare_pdf(folder / "b.pdf", tmp_path / "out", dpi=72)
    image = open_image(str(out / "images" / "b" / "1.jpg"))
    assert image.size == A5
    pixels = np.asarray(image.convert("L"))
    assert pixels[-45:-5, 5:45].max() < 20, "the square"
    assert pixels[:30].min() > 240, "white paper"
    assert pixels[35:60, 20:80].min() < 80, "the text"
    twice = prepare_pdf(folder / "b.pdf", tmp_path / "twice", dpi=144)
    assert open_image(str(twice / "images" / "b" / "1.jpg")).size == (840, 1190)


def test_one_file_may_be_given(tmp_path, folder):
    out = prepare_pdf(folder / "manuals" / "a.pdf", tmp_path / "out", dpi=20)
    assert [row["_id"] for row in rows(out)] == ["a/1", "a/2", "a/3"]


def test_several_processes_write_the_same_as_one(tmp_path, folder):
    one = prepare_pdf(folder, tmp_path / "one", dpi=40)
    two = prepare_pdf(folder, tmp_path / "two", dpi=40, workers=2)
    assert contents(one) == contents(two)


def test_interrupted_and_resumed_is_never_interrupted(tmp_path, folder, monkeypatch):
    whole = prepare_pdf(folder, tmp_path / "whole", dpi=40)
    read_page, seen = pdf._read_page, []

    def interrupt(document, number, job, part):
        seen.append((job.file, number))
        if job.file == "manuals/a.pdf" and number == 2:
            raise KeyboardInterrupt
        read_page(document, number, job, part)

    monkeypatch.setattr(pdf, "_read_page", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_pdf(folder, tmp_path / "out", dpi=40)
    assert not manifest(tmp_path / "out")["finished"] and not (tmp_path / "out" / "corpus.jsonl").exists()
    again = []
    monkeypatch.setattr(pdf, "_read_page", lambda *given: again.append(given[2].file) or read_page(*given))
    prepare_pdf(folder, tmp_path / "out", dpi=40)
    assert seen[0] == ("b.pdf", 1) and "b.pdf" not in again, "what was finished is not read again"
    assert contents(tmp_path / "out") == contents(whole)


def test_a_finished_folder_is_left_as_it_is(tmp_path, folder, monkeypatch, caplog):
    out = prepare_pdf(folder, tmp_path / "out", dpi=20)
    before = contents(out)
    monkeypatch.setattr(pdf, "_read", lambda job: pytest.fail("read again"))
    with caplog.at_level(logging.INFO, "colmrl"):
        assert prepare_pdf(folder, out, dpi=20) == out
    assert contents(out) == before and "is finished already" in caplog.text
    with pytest.raises(InputError, match=r"was begun with other dpi \(20, now 30\)"):
        prepare_pdf(folder, out, dpi=30)
    (folder / "new.pdf").write_bytes(pdf_bytes("new"))
    with pytest.raises(InputError, match=r"was begun with other pdfs \('3 \(\w+\)', now '4"):
        prepare_pdf(folder, out, dpi=20)


def test_what_cannot_be_read_is_left_out_and_named(tmp_path, folder, caplog):
    (folder / "locked.pdf").write_bytes(ENCRYPTED)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.7\nand nothing else")
    (folder / "empty.pdf").touch()
    (folder / "half.pdf").write_bytes(pdf_bytes("one", "two", "three", broken_page=1))
    with caplog.at_level(logging.INFO, "colmrl"):
        out = prepare_pdf(folder, tmp_path / "out", dpi=20)
    counts, problems = manifest(out)["counts"], manifest(out)["problems"]
    assert (counts["pdfs"], counts["encrypted"], counts["broken"], counts["failed_pages"]) == (4, 1, 2, 1)
    assert [problem.split(":")[0] for problem in problems] == ["broken.pdf", "empty.pdf", "half.pdf", "locked.pdf"]
    assert problems[0].startswith("broken.pdf: cannot be opened (")
    assert problems[2].startswith("half.pdf: page 2: cannot be rendered (")
    assert problems[3] == "locked.pdf: needs a password: save it without one, or take it out"
    assert [row["_id"] for row in rows(out) if "half" in row["_id"]] == ["half/1", "half/3"]
    assert all(problem in caplog.text for problem in problems)
    said = "wrote 8 pages of 4 PDFs to .*; 1 encrypted, 2 broken, 1 pages that failed"
    assert re.search(said, caplog.text)
    assert "queries.jsonl" in caplog.text and "train.tsv" in caplog.text


def test_no_readable_page_at_all_is_an_error(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "locked.pdf").write_bytes(ENCRYPTED)
    (tmp_path / "in" / "broken.pdf").write_bytes(b"")
    with pytest.raises(InputError, match=r"no page of its 2 PDFs can be read: broken\.pdf: .* \(and 1 more\)"):
        prepare_pdf(tmp_path / "in", tmp_path / "out")
    assert not manifest(tmp_path / "out")["finished"] and not (tmp_path / "out" / "corpus.jsonl").exists()


def test_gigantic_pages_are_rendered_smaller_and_named(tmp_path, monkeypatch):
    (tmp_path / "a.pdf").write_bytes(pdf_bytes("big", size=(2000, 1000)))
    monkeypatch.setattr(pdf, "MAX_PAGE_PIXELS", 500_000)
    out = prepare_pdf(tmp_path / "a.pdf", tmp_path / "out", dpi=144)
    width, height = open_image(str(out / "images" / "a" / "1.jpg")).size
    assert (width, height) == (1000, 500)
    assert manifest(out)["counts"]["shrunk"] == 1
    assert manifest(out)["problems"] == [
        "a.pdf: page 1: too large for 144 dpi (28 × 14 inches), rendered at 36: leave it so, or cut it into pages"
    ]
    monkeypatch.setattr(pdf, "MAX_PAGE_PIXELS", 10**9)
    (tmp_path / "long.pdf").write_bytes(pdf_bytes("", size=(14000, 4)))
    out = prepare_pdf(tmp_path / "long.pdf", tmp_path / "long", dpi=400)
    assert Image.open(out / "images" / "long" / "1.jpg").size[0] == pdf.MAX_SIDE_PIXELS, "JPEG has no longer side"


def test_what_was_filled_into_a_form_is_drawn(tmp_path):
    look = b"<</Type/XObject/Subtype/Form/BBox[0 0 100 100]/Length 18>>stream\n0 0 100 100 re f \nendstream"
    whole = pdf_bytes("form", catalog=b"/AcroForm<</Fields[9 0 R]>>")
    widget = (
        b"9 0 obj\n<</Type/Annot/Subtype/Widget/FT/Tx/T(a)/V(x)/F 4/Rect[200 200 300 300]/AP<</N 10 0 R>>>>\nendobj\n"
    )
    page = whole.index(b"/MediaBox")
    # Without a valid table of places, pdfium looks for the objects itself.
    body = whole[:page] + b"/Annots[9 0 R]" + whole[page : whole.index(b"xref")] + widget
    body += b"10 0 obj\n" + look + b"\nendobj\ntrailer\n<</Size 11/Root 1 0 R>>\n%%EOF\n"
    (tmp_path / "a.pdf").write_bytes(body)
    out = prepare_pdf(tmp_path / "a.pdf", tmp_path / "out", dpi=72)
    pixels = np.asarray(open_image(str(out / "images" / "a" / "1.jpg")).convert("L"))
    assert pixels[A5[1] - 290 : A5[1] - 210, 210:290].max() < 250


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a\r\nb\rc\nd", "a\nb\nc\nd"),
        ("infor\ufffemation\0", "information"),
        ("half \ud83d a pair", "half  a pair"),
        ("😀 whole\n", "😀 whole"),
    ],
)
def test_text_layers_are_valid_json_and_unicode(raw, clean):
    assert clean_text(raw) == clean
    clean_text(raw).encode()


def test_two_pdfs_that_would_share_ids_are_refused(tmp_path, folder):
    (folder / "b.PDF").write_bytes(pdf_bytes("another"))
    with pytest.raises(InputError, match=r"b\.PDF and b\.pdf would give the same ids b/1, …: rename one"):
        prepare_pdf(folder, tmp_path / "out")
    (folder / "b.PDF").rename(folder / "tab\there.pdf")
    with pytest.raises(InputError, match=r"'tab\\there\.pdf': not a name for ids"):
        prepare_pdf(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_folder_of_pdfs_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no PDF")
    for path, problem in (
        (tmp_path, "no .pdf file"),
        (tmp_path / "notes.txt", "no .pdf file"),
        (tmp_path / "x", "no such"),
    ):
        with pytest.raises(InputError, match=problem):
            prepare_pdf(path, tmp_path / "out")
    with pytest.raises(InputError, match="--dpi 0, --workers 1: below one"):
        prepare_pdf(tmp_path, tmp_path / "out", dpi=0)
    assert not (tmp_path / "out").exists()


def test_without_pypdfium2_the_remedy_is_named(tmp_path, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(InputError, match="not installed: pip install pypdfium2"):
        prepare_pdf(folder, tmp_path / "out")


def die(job):
    """In place of `_read`, in a worker process."""
    os._exit(1)


def test_a_worker_that_dies_is_told_with_what_it_may_have_died_of(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(pdf, "_read", die)
    with pytest.raises(InputError, match=r"b\.pdf, manuals/a\.pdf, z\.PDF: one of these ended its process"):
        prepare_pdf(folder, tmp_path / "out", workers=2)


def test_the_command_prints_the_folder(tmp_path, folder):
    cli = app("test")
    cli.command()(pdf_command)
    done = CliRunner().invoke(cli, [str(folder), "--out", str(tmp_path / "out"), "--dpi", "20"])
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / "out")
    assert CliRunner().invoke(cli, [str(tmp_path / "none"), "--out", str(tmp_path / "o")]).exit_code == 2
