"""A page looked at in headless Chromium, as wide as a phone."""

import html
import json
import re
import subprocess
from pathlib import Path

_LOOK = """
<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>look</title>
<style>body { margin: 0 } iframe { border: 0; width: %(width)dpx; height: 800px }</style>
<iframe id="page" srcdoc="%(page)s"></iframe><pre id="seen"></pre>
<script>
window.addEventListener("load", () => {
  const page = document.getElementById("page").contentDocument;
  page.querySelectorAll("details").forEach(one => { one.open = true; });
  const images = Array.from(page.images);
  document.getElementById("seen").textContent = JSON.stringify({
    width: page.documentElement.clientWidth,
    needed: page.documentElement.scrollWidth,
    images: images.length,
    loaded: images.filter(one => one.complete && one.naturalWidth > 0).length,
    outside: performance.getEntriesByType("resource").length,
    scripts: page.scripts.length,
    headings: Array.from(page.querySelectorAll("h2")).map(one => one.textContent),
  });
});
</script>
"""


def looked_at(chromium: str, path: Path, width: int, folder: Path) -> tuple[dict, list[str]]:
    """What the page measures, everything unfolded, and what its console says."""
    wrapper = folder / "wrapper.html"
    wrapper.write_text(_LOOK % {"width": width, "page": html.escape(path.read_text(), quote=True)})
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    command += [f"--user-data-dir={folder}/chromium", "--virtual-time-budget=10000", "--dump-dom", wrapper.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seen = re.search(r'<pre id="seen">(\{.*?\})</pre>', done.stdout, re.DOTALL)
    assert seen, done.stderr[-2000:]
    return json.loads(html.unescape(seen.group(1))), [line for line in done.stderr.splitlines() if "CONSOLE" in line]
