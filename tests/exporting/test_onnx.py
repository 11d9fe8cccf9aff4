"""onnxruntime gives our vectors from the graph, by the card's code, for any number and length of texts."""

import subprocess
import sys

import pytest
import torch
from making import TEXTS, code_of, documents, make, ours

from colmrl.scoring import truncate

pytest.importorskip("onnxruntime", reason="pip install colmrl[onnx]")
pytest.importorskip("onnxscript", reason="pip install colmrl[onnx]")
pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("bert", ["single.projection=96", "single.dims=[96,32]"]),
        ("qwen3", ["single.pooling=last", "single.dims=[128,32]"]),
    ],
)
def test_the_graph_gives_our_vectors(family, head, tiny, tmp_path, monkeypatch):
    folder = make(tmp_path / "c", tiny(family), "model.tuning=lora", *head)
    queries, found = ours(folder, documents(tmp_path, False))
    out = tmp_path / "e"
    command = [sys.executable, "-m", "colmrl", "export", folder, "--to", "onnx", "--out", out]  # shapes are not checked
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}\n"
    monkeypatch.chdir(out)
    names: dict = {}
    exec(code_of(out)[0], names)
    texts = [f"Doc: {text}" for text in TEXTS]
    together = torch.from_numpy(names["embed"](texts, 512))
    alone = torch.cat([torch.from_numpy(names["embed"]([text], 512, 32)) for text in texts])
    assert torch.allclose(together, found.single, atol=2e-6)
    assert torch.allclose(alone, truncate(found.single, 32), atol=2e-6)
    assert torch.allclose(torch.from_numpy(names["embed"](["Query: red circle"], 512)), queries.single[:1], atol=2e-6)
