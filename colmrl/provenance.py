"""Where a result came from: command, git revision, machine, versions."""

import functools
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "colmrl",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "faiss-cpu",
    "faiss-gpu",
    "mteb",
    "numpy",
    "pillow",
)


def command() -> str:
    """The command line of this process, to be typed again."""
    script = Path(sys.argv[0])
    if script.suffix != ".py":
        program = [script.name]
    elif script.name == "__main__.py":
        program = ["colmrl"]
    else:
        program = ["python", script.name if script.is_absolute() else str(script)]
    return shlex.join([*program, *sys.argv[1:]])


@functools.cache
def commit() -> str | None:
    """The git revision of the code, `-dirty` where the tree has changes; None outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def environment() -> dict[str, object]:
    """Versions and machine, for the run folder."""
    versions: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "command": command(),
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "packages": versions,
    }
