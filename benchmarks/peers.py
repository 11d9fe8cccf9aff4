"""Other tools, each in an environment of its own under ~/.cache/colmrl-peers, made on first use: their pins conflict.

`bare` packages are installed without what they ask for, where that cannot stand beside the CPU build of torch
(torchvision: CUDA; PyLate: fast-plaid's torch 2.11) and the functions measured here do not need it.
"""

import hashlib
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path.home() / ".cache" / "colmrl-peers"
TORCH = ("torch==2.13.0", "numpy")


class Unavailable(Exception):
    """Why a tool could not be installed, in a line."""


@dataclass(frozen=True)
class Peer:
    packages: tuple[str, ...]
    bare: tuple[str, ...] = ()


PEERS = {
    "maxsim-cpu": Peer(("maxsim-cpu==0.1.0", "numpy")),
    "fast-maxsim": Peer(("fast-maxsim==0.2.0", "numpy")),
    "late-interaction-kernels": Peer(TORCH, ("late-interaction-kernels==0.4.5",)),
    "colpali-engine": Peer(
        (*TORCH, "transformers==5.23.0", "peft==0.20.0", "pillow", "requests", "scipy"),
        ("colpali-engine==0.3.18", "torchvision==0.28.0"),
    ),
    "colpali-engine, training": Peer(  # whose trainer imports datasets
        (*TORCH, "transformers==5.23.0", "peft==0.20.0", "pillow", "requests", "scipy", "datasets==5.2.0"),
        ("colpali-engine==0.3.18", "torchvision==0.28.0"),
    ),
    "pylate": Peer(
        (*TORCH, "sentence-transformers==5.3.0", "transformers==5.3.0", "datasets", "accelerate", "pandas", "ujson"),
        ("pylate==1.6.0",),
    ),
    "sentence-transformers": Peer(
        (*TORCH, "sentence-transformers==6.2.0", "transformers==5.23.0", "pillow", "requests"),
        ("torchvision==0.28.0", "qwen-vl-utils==0.0.14"),
    ),
    "fast-plaid": Peer(("fast-plaid==1.7.0.2110",)),  # as it asks for them: with torch 2.11
    "pylate-plaid": Peer(("pylate==1.6.0",)),
}


def python(name: str) -> Path:
    """The tool's interpreter, installed if it is not yet there or its pins have changed."""
    peer, folder = PEERS[name], ROOT / name
    wanted = hashlib.sha256(repr(peer).encode()).hexdigest()
    stamp, program = folder / "installed", folder / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {name} into {folder}", flush=True)
        venv.create(folder, clear=True, with_pip=True)
        for packages in (peer.packages, ("--no-deps", *peer.bare)):
            if packages == ("--no-deps",):
                continue
            command = [program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
                reason = lines[-1] if lines else f"exit status {done.returncode}"
                raise Unavailable(f"pip install {' '.join(packages)}: {reason}")
        stamp.write_text(wanted)
    return program
