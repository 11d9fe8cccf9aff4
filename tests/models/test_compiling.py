"""In a process of its own: the shape checks that the other tests switch on cannot be compiled."""

import shutil
import subprocess
import sys

import pytest

CHECK = """
import sys, torch
from colmrl.configure import load_config
from colmrl.data.records import Document
from colmrl.models.retriever import Retriever

options = ["multi.dims=[64,16]", "single.projection=64", "single.dims=[32]"]
config = load_config(None, [f"model.backbone={sys.argv[1]}", *options])
plain, compiled = Retriever.create(config), Retriever.create(config)
names = list(compiled.state_dict())
compiled.compile_heads()
assert list(compiled.state_dict()) == names
compiled_frames = torch._dynamo.utils.counters["stats"]
for size in (2, 3, 5):
    batch = plain.inputs.documents([Document(str(i), text="red circle " * (i + 1)) for i in range(size)])
    one, two = plain(batch), compiled(batch)
    for out in (one, two):
        (out.single[0] @ out.single[1] + out.multi.vectors[:3].std()).backward()
    assert torch.allclose(one.single, two.single, atol=1e-5)
    assert torch.allclose(one.multi.vectors, two.multi.vectors, atol=1e-5)
    assert torch.equal(one.multi.offsets, two.multi.offsets)
assert compiled_frames["unique_graphs"] > 0
for (name, a), b in zip(plain.named_parameters(), compiled.parameters()):
    assert a.grad is None or torch.allclose(a.grad, b.grad, atol=1e-5), name
print("graphs", compiled_frames["unique_graphs"])
compiled.save(sys.argv[2])
again = Retriever.load(sys.argv[2])
assert torch.equal(again.multi.projection.weight, compiled.multi.projection.weight)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU; there is no g++")
def test_compiled_heads_give_the_same_and_keep_their_names(tiny, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(tiny("qwen3")), str(tmp_path / "c")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
