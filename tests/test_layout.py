"""The layout of DESIGN §3: imports point left only; the scripts are the apps and nothing else."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = [
    "errors",
    "files",
    "view",
    "config_judging",
    "config_model",
    "config",
    "configure",
    "runtime",
    "provenance",
    "progress",
    "processes",
    "cluster",
    "data",
    "coding",
    "kernels",
    "nearest",
    "scoring",
    "reduction",
    "losses",
    "models",
]
ORDER += [
    "inspecting",
    "inputs",
    "checking",
    "preparing",
    "store",
    "encoding",
    "exporting",
    "search",
    "database",
    "reranking",
    "showing",
    "serving",
    "mining",
    "evaluation",
    "training",
    "lineage",
    "reporting",
    "loop",
    "api",
    "cli",
    "__main__",
]
MODULES = sorted((ROOT / "colmrl").rglob("*.py"))


def place(module: str) -> int:
    return ORDER.index(module.split(".")[1])


@pytest.mark.parametrize("path", [m for m in MODULES if m.parent.name != "colmrl" or m.name != "__init__.py"], ids=str)
def test_imports_point_left_only(path):
    own = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.startswith("colmrl."):
                assert place(name) <= place(own), f"{own} imports {name}"


def test_only_the_backbone_and_the_tiny_models_know_a_family():
    named = re.compile(r"qwen\d|internvl|Qwen\dVL", re.IGNORECASE)
    allowed = {"backbone.py", "tiny.py"}
    for path in MODULES:
        code = ast.unparse(ast.parse(path.read_text()))
        without_texts = re.sub(r"""("[^"]*"|'[^']*'|\"\"\".*?\"\"\")""", "", code, flags=re.DOTALL)
        assert path.name in allowed or not named.search(without_texts), path


@pytest.mark.parametrize("path", [m for m in MODULES if m.stat().st_size], ids=str)
def test_files_functions_and_docstrings_keep_to_the_conventions(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "a module opens with what it does"
    assert len(path.read_text().splitlines()) <= 300
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
        if isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            modes = [getattr(mode, "value", None) for mode in (*node.args, *(given.value for given in node.keywords))]
            text = (isinstance(node.func, ast.Attribute) and called in ("read_text", "write_text")) or (
                called == "open" and any(mode in ("r", "w", "a", "r+", "x") for mode in modes)
            )
            assert not text or any(given.arg == "encoding" for given in node.keywords), "the locale says the encoding"


@pytest.mark.parametrize("script", ["train.py", "encode.py", "mine.py", "eval.py"])
def test_help_needs_no_heavy_library(script):
    code = (
        f"import sys, runpy; sys.argv = ['{script}', '--help']\n"
        f"try: runpy.run_path('{script}', run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'faiss', 'mteb', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    flags = re.findall(r"^  (?:-\w, )?--(?!help)[\w-]+", done.stdout, re.MULTILINE)
    assert 0 < len(flags) <= 10
