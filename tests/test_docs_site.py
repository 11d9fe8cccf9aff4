"""docs/ builds as a site in which every link leads somewhere; without the API's reference, which has to be imported."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("myst_parser", reason="pip install -e '.[docs]'")
ROOT = Path(__file__).parents[1]


def build(root: Path, out: Path) -> subprocess.CompletedProcess[str]:
    strict = ["-b", "dummy", "-q", "-W", "--keep-going", "-t", "pages"]
    command = [sys.executable, "-m", "sphinx", *strict, str(root / "docs"), str(out)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_every_link_between_the_pages_leads_somewhere(tmp_path):
    done = build(ROOT, tmp_path / "out")
    assert done.returncode == 0, done.stderr


def test_a_link_to_nowhere_would_be_found(tmp_path):
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "conf.py", tmp_path / "docs")
    (tmp_path / "docs" / "index.md").write_text("# One\n\n[two](two.md)\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode == 1 and "two.md" in done.stderr
