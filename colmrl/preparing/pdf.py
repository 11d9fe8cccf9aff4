"""A folder of PDFs → a data folder in the BEIR layout, one document a page: its picture and its text layer.

Rendered with pdfium, which is not thread-safe: several at a time are several processes. What each PDF gave is kept
under `parts/` until all are done; corpus.jsonl is then put together in the order of the files' names.
"""

import hashlib
import json
import logging
import math
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colmrl.data.jsonl import write_rows
from colmrl.errors import InputError
from colmrl.files import write_text, write_whole
from colmrl.preparing.folder import PreparedFolder
from colmrl.progress import track

log = logging.getLogger(__name__)

JPEG_QUALITY = 90
MAX_PAGE_PIXELS = 50_000_000  # a page that would have more is rendered smaller: A0 at 150 dpi has 35 million
MAX_SIDE_PIXELS = 65_500  # JPEG's own limit
_POINTS_PER_INCH = 72
_ENCRYPTED = (4, 5)  # FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY (a scheme that pdfium does not know)
_MENDING = "open it, save it anew, or take it out"


@dataclass(frozen=True)
class _Job:
    """One PDF: `name` is its path relative to the folder, without the suffix; its pages are `name/1`, `name/2`, …"""

    path: str
    file: str
    out: str
    dpi: int

    @property
    def name(self) -> str:
        return self.file[: -len(".pdf")]

    @property
    def part(self) -> Path:
        return Path(self.out) / "parts" / f"{hashlib.sha256(self.file.encode()).hexdigest()}.json"


@dataclass
class _Part:
    """What one PDF gave. `problems`: (kind, line), where the kind is what is counted."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def blame(self, kind: str, place: str, problem: str, remedy: str) -> None:
        self.problems.append((kind, f"{place}: {problem}: {remedy}"))


def prepare_pdf(folder: str | Path, out: str | Path, dpi: int = 144, workers: int = 1) -> Path:
    """Write the data folder `out` from all PDFs in `folder` and below (or from one file); returns `out`.

    Goes on with a run that was interrupted, to the same bytes. PDFs and pages that cannot be read are left out, named
    in manifest.json and in the log; where none can be read, that is an InputError.
    """
    if dpi < 1 or workers < 1:
        raise InputError(f"--dpi {dpi}, --workers {workers}: below one: give 1 or more")
    folder, out = Path(folder), Path(out)
    root, files = _found(folder)
    prepared = PreparedFolder(out, "pdf", _settings(folder, root, files, dpi))
    if prepared.start():
        jobs = [_Job(str(root.resolve() / file), file, str(out), dpi) for file in files]
        _read_all([job for job in jobs if not job.part.is_file()], workers, len(jobs))
        counts, problems = _assemble(jobs, out, folder)
        prepared.finish(counts, problems)
        _report(out, counts, problems)
    else:
        log.info("%s: is finished already", out)
    shutil.rmtree(out / "parts", ignore_errors=True)
    return out


def _found(folder: Path) -> tuple[Path, list[str]]:
    """(what the names are relative to, the PDFs' names in order)."""
    if folder.is_file():
        root, paths = folder.parent, [folder]
    elif folder.is_dir():
        root, paths = folder, [path for path in folder.rglob("*") if path.is_file()]
    else:
        raise InputError(f"{folder}: no such folder or file: name a folder with PDFs, or one PDF")
    files = sorted(path.relative_to(root).as_posix() for path in paths if path.suffix.lower() == ".pdf")
    if not files:
        raise InputError(f"{folder}: no .pdf file in it: name a folder with PDFs, or one PDF")
    named: dict[str, str] = {}
    for file in files:
        if any(c in "\t\r\n" or "\ud800" <= c <= "\udfff" for c in file):  # a tab would break qrels
            raise InputError(f"{root}: {file!r}: not a name for ids (a tab, a new line, or not UTF-8): rename it")
        name = file[: -len(".pdf")]
        if name in named:
            raise InputError(f"{root}: {named[name]} and {file} would give the same ids {name}/1, …: rename one")
        named[name] = file
    return root, files


def _settings(folder: Path, root: Path, files: Sequence[str], dpi: int) -> dict[str, Any]:
    """All that the result depends on; a PDF that came, went or changed its size makes it another work."""
    digest = hashlib.sha256(json.dumps([(file, (root / file).stat().st_size) for file in files]).encode())
    return {
        "folder": str(folder.resolve()),
        "pdfs": f"{len(files)} ({digest.hexdigest()[:12]})",
        "dpi": dpi,
        "jpeg_quality": JPEG_QUALITY,
        "max_page_pixels": MAX_PAGE_PIXELS,
    }


def _read_all(jobs: Sequence[_Job], workers: int, total: int) -> None:
    if len(jobs) < total:
        log.info("%d of %d PDFs were read before", total - len(jobs), total)
    if workers == 1 or len(jobs) < 2:
        for job in track(jobs, "PDFs", len(jobs)):
            _read(job)
        return
    fresh = multiprocessing.get_context("spawn")  # a fork would take over the progress bar's thread half-way
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=fresh)
    try:
        for done in track(as_completed([pool.submit(_read, job) for job in jobs]), "PDFs", len(jobs)):
            done.result()
    except BrokenProcessPool:
        left = [job.file for job in jobs if not job.part.is_file()][: 2 * workers]  # they are begun in order
        raise InputError(
            f"{', '.join(left)}: one of these ended its process (out of memory, or pdfium crashed): "
            "go on with --workers 1 or a lower --dpi, or take it out"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _read(job: _Job) -> None:
    """Write one PDF's pictures, then its part."""
    try:
        import pypdfium2
    except ImportError:
        raise InputError(f"{job.path}: a PDF needs pypdfium2, which is not installed: pip install pypdfium2") from None
    part = _Part()
    try:
        with pypdfium2.PdfDocument(job.path) as pdf:
            pdf.init_forms()  # what was filled in is drawn too
            for number in range(1, len(pdf) + 1):
                _read_page(pdf, number, job, part)
    except pypdfium2.PdfiumError as error:
        if error.err_code in _ENCRYPTED:
            part.blame("encrypted", job.file, "needs a password", "save it without one, or take it out")
        else:
            part.blame("broken", job.file, f"cannot be opened ({_said(error)})", _MENDING)
    except OSError as error:
        part.blame("broken", job.file, f"cannot be opened ({error.strerror})", "make it readable, or take it out")
    write_text(job.part, json.dumps({"rows": part.rows, "problems": part.problems}, ensure_ascii=False))


def _read_page(pdf: Any, number: int, job: _Job, part: _Part) -> None:
    """Add a page to `part`, and its picture to `out`."""
    import pypdfium2

    place, image = f"{job.file}: page {number}", f"images/{job.name}/{number}.jpg"
    try:
        page = pdf[number - 1]
        try:
            width, height = page.get_size()
            scale = _scale(width, height, job.dpi)
            if scale < job.dpi / _POINTS_PER_INCH:
                inches = f"{width / _POINTS_PER_INCH:.0f} × {height / _POINTS_PER_INCH:.0f} inches"
                problem = f"too large for {job.dpi} dpi ({inches}), rendered at {scale * _POINTS_PER_INCH:.0f}"
                part.blame("shrunk", place, problem, "leave it so, or cut it into pages")
            picture = page.render(scale=scale).to_pil()
            text = _text(page)
        finally:
            page.close()
    except (pypdfium2.PdfiumError, ValueError, MemoryError) as error:
        part.blame("failed_pages", place, f"cannot be rendered ({_said(error)})", _MENDING)
        return
    write_whole(Path(job.out) / image, lambda partial: picture.save(partial, "JPEG", quality=JPEG_QUALITY))
    meta: dict[str, Any] = {"file": job.file, "page": number, "pages": len(pdf)}
    if label := _label(pdf, number):
        meta["label"] = label
    part.rows.append({"_id": f"{job.name}/{number}", "text": text, "title": "", "image": image, "meta": meta})


def _label(pdf: Any, number: int) -> str:
    try:
        return clean_text(pdf.get_page_label(number - 1))
    except UnicodeDecodeError:  # an ornament, not worth a problem
        return ""


def _said(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _scale(width: float, height: float, dpi: int) -> float:
    """Pixels a point: `dpi`, or less where the page would have too many."""
    if width <= 0 or height <= 0:
        raise ValueError(f"{width:g} × {height:g} points")
    wanted = dpi / _POINTS_PER_INCH
    most = min(math.sqrt(MAX_PAGE_PIXELS / (width * height)), MAX_SIDE_PIXELS / max(width, height))
    return min(wanted, most)


def _text(page: Any) -> str:
    textpage = page.get_textpage()
    try:
        return clean_text(textpage.get_text_bounded())
    finally:
        textpage.close()


def clean_text(text: str) -> str:
    """Lines end in \\n; without NUL, half surrogate pairs, and U+FFFE, pdfium's mark for a hyphen at a line's end."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in text if c not in "\0\ufffe" and not "\ud800" <= c <= "\udfff").strip()


def _assemble(jobs: Sequence[_Job], out: Path, folder: Path) -> tuple[dict[str, int], list[str]]:
    """Write corpus.jsonl; (counts, problems)."""
    counts, problems = Counter[str](), list[str]()

    def rows() -> Iterator[dict[str, Any]]:
        for job in jobs:
            part = json.loads(job.part.read_text(encoding="utf-8"))
            yield from part["rows"]
            counts["pdfs"] += bool(part["rows"])
            counts["pages"] += len(part["rows"])
            counts["pages_without_text"] += sum(not row["text"] for row in part["rows"])
            counts.update(kind for kind, _ in part["problems"])
            problems.extend(line for _, line in part["problems"])

    write_rows(out / "corpus.jsonl", rows())
    if not counts["pages"]:
        (out / "corpus.jsonl").unlink()
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{folder}: no page of its {len(jobs)} PDFs can be read: {problems[0]}{more}")
    names = ("pdfs", "pages", "pages_without_text", "encrypted", "broken", "failed_pages", "shrunk")
    return {name: counts[name] for name in names}, problems


def _report(out: Path, counts: dict[str, int], problems: Sequence[str]) -> None:
    for line in problems:
        log.warning("%s", line)
    said = {
        "encrypted": "encrypted",
        "broken": "broken",
        "failed_pages": "pages that failed",
        "shrunk": "pages rendered smaller",
    }
    left = ", ".join(f"{counts[kind]} {words}" for kind, words in said.items() if counts[kind])
    left = f"; {left} (named in manifest.json)" if left else ""
    log.info("wrote %d pages of %d PDFs to %s%s", counts["pages"], counts["pdfs"], out, left)
    if counts["pages_without_text"]:
        log.info("%d pages have no text layer: their text is empty", counts["pages_without_text"])
    log.info(
        'next: add %s with {"_id": …, "text": …} lines, and %s with query-id<TAB>corpus-id<TAB>score lines',
        out / "queries.jsonl",
        out / "qrels" / "train.tsv",
    )
