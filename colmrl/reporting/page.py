"""One self-contained HTML page: texts escaped, pictures as data URIs, no script, one column that fits a phone."""

import base64
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from string import Template

from PIL import Image

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 60rem; margin: 0 auto;
       padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
img { max-width: 100%; height: auto; }
code { font-size: .85em; background: #f3f3f3; padding: .1em .3em; }
.wide { overflow-x: auto; } .wide img { max-width: none; height: 16rem; width: auto; }
.wide.chart img { height: auto; width: max(100%, 40rem); }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .2rem .6rem; text-align: left; border-bottom: 1px solid #e5e5e5; white-space: nowrap; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.pages { display: flex; flex-wrap: wrap; gap: .5rem; }
figure { margin: 0; width: 9rem; font-size: .75rem; }
figure img { border: 3px solid #ddd; } figure.right img { border-color: #2a9d3c; }
figcaption { overflow-wrap: anywhere; }
details { margin: .5rem 0; } summary { cursor: pointer; }
.said { color: #555; font-size: .9rem; }
</style>
</head>
<body>
$body
</body>
</html>
""")


def page(title: str, sections: Iterable[str]) -> str:
    """`sections` are HTML as the functions below give it."""
    return _PAGE.substitute(title=html.escape(title), body="\n".join([f"<h1>{html.escape(title)}</h1>", *sections]))


def section(title: str, *parts: str) -> str:
    return "\n".join([f"<section><h2>{html.escape(title)}</h2>", *parts, "</section>"])


def said(text: str) -> str:
    return f'<p class="said">{html.escape(text)}</p>'


def command(text: str) -> str:
    return f"<p><code>{html.escape(text)}</code></p>"


def heading(text: str) -> str:
    return f"<h3>{html.escape(text)}</h3>"


def table(lines: Sequence[Sequence[str]]) -> str:
    """A header and rows, which scroll inside themselves."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in lines[0])
    body = "".join("<tr>" + "".join(map(_cell, line)) + "</tr>\n" for line in lines[1:])
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    number = text.replace(",", "").replace(".", "").replace("-", "").replace("%", "").strip().isdigit()
    return f'<td class="n">{html.escape(text)}</td>' if number else f"<td>{html.escape(text)}</td>"


def folded(title: str, *parts: str) -> str:
    return "\n".join([f"<details><summary>{html.escape(title)}</summary>", *parts, "</details>"])


def chart_file(path: Path, says: str) -> str:
    """A chart, never so small that its names cannot be read: it scrolls inside itself."""
    return _chart(path.read_bytes(), says)


def chart(picture: Image.Image, says: str) -> str:
    return _chart(_bytes(picture, "png"), says)


def _chart(content: bytes, says: str) -> str:
    return f'<div class="wide chart">{_image(content, "png", says)}</div>'


def lines(some: Sequence[str]) -> str:
    return f'<pre class="wide">{html.escape(chr(10).join(some))}</pre>'


def wide(picture: Image.Image, says: str) -> str:
    """A picture that is read at its own size, scrolling inside itself."""
    return f'<div class="wide">{_image(_bytes(picture, "jpeg"), "jpeg", says)}</div>'


def figure(picture: Image.Image | None, caption: str, right: bool) -> str:
    """A small picture, or none, with what stands below it; marked where it is a right answer."""
    inner = _image(_bytes(picture, "jpeg"), "jpeg", caption) if picture is not None else ""
    below = f"<figcaption>{html.escape(caption)}</figcaption>"
    return f'<figure class="{"right" if right else "other"}">{inner}{below}</figure>'


def pages(figures: Iterable[str]) -> str:
    return f'<div class="pages">{"".join(figures)}</div>'


def _image(content: bytes, kind: str, says: str) -> str:
    encoded = base64.b64encode(content).decode()
    return f'<img alt="{html.escape(says, quote=True)}" src="data:image/{kind};base64,{encoded}">'


def _bytes(picture: Image.Image, kind: str) -> bytes:
    out = io.BytesIO()
    picture.convert("RGB").save(out, format=kind, quality=85)
    return out.getvalue()
