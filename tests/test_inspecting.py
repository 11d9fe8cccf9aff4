"""`colmrl inspect` says what a folder is read as, and loads nothing of it."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from colmrl.cli.main import main_app
from colmrl.errors import InputError
from colmrl.inspecting import inspect
from colmrl.models.retriever import Retriever


def test_a_checkpoint_is_told(checkpoint):
    facts = inspect(checkpoint)
    parameters = sum(p.numel() for p in Retriever.load(checkpoint).backbone.parameters())
    assert facts["what"] == "colmrl checkpoint" and str(facts["family"]).startswith("internvl, 128 wide")
    assert facts["parameters"] == f"{parameters:,} in F32" and facts["tuning"] == "trained whole, weights here"
    assert facts["single"] == "dims 128, 32; pooling mean; no projection"
    assert facts["multi"] == "dims 64, 16; projected to 64" and facts["heads"] == f"{64 * 128:,} parameters"


def test_a_bare_backbone_is_told_with_its_licence(tiny):
    (tiny("bert") / "README.md").write_text("---\ntags: [x]\nlicense: mit\n---\nlicense: no\n")
    facts = inspect(tiny("bert"))
    (tiny("bert") / "README.md").unlink()
    assert "a bare backbone" in str(facts["what"]) and facts["licence"] == "mit"


def test_a_store_and_an_unknown_folder_are_refused_with_what_to_do(store, tmp_path):
    with pytest.raises(InputError, match="colmrl store show"):
        inspect(store)
    with pytest.raises(InputError, match=r"looked for colmrl\.json.*config\.json"):
        inspect(tmp_path)


def test_the_command_shows_a_table_or_json(checkpoint):
    shown = CliRunner().invoke(main_app, ["inspect", str(checkpoint)]).output
    assert "internvl" in shown and "projected to 64" in shown
    facts = json.loads(CliRunner().invoke(main_app, ["inspect", str(checkpoint), "--json"]).output)
    assert facts == inspect(checkpoint)
    assert facts["settings"]["single"]["dims"] == [128, 32] and "settings" not in shown


def test_inspecting_needs_no_heavy_library(checkpoint):
    code = (
        "import sys\nfrom colmrl.inspecting import inspect\n"
        f"inspect({str(checkpoint)!r})\n"
        "heavy = {'torch', 'transformers', 'numpy', 'faiss'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
