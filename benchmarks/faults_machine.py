"""What faults.py does to the machine, and how it writes down what came of it."""

import json
import locale
import os
import resource
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from colmrl import provenance


def other_clock() -> None:
    """And another locale: what files are read and written in, where nothing says so, is ASCII."""
    locale.setlocale(locale.LC_ALL, "C")
    now = time.time
    time.time = lambda: now() - 40 * 365 * 86400
    os.environ["TZ"] = "Pacific/Kiritimati"
    time.tzset()


def limit(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(["mount", "-t", "tmpfs", "none", place], capture_output=True)
        return not done.returncode and not subprocess.run(["umount", place], capture_output=True).returncode


def written(out: Path, rows: list[dict[str, Any]], mounts: bool) -> dict[str, int]:
    """After each row, so that a run that is ended leaves what it has."""
    total = {key: sum(row[key] for row in rows) for key in ("injected", "survived", "said")}
    total["lost"] = sum(len(row["lost"]) for row in rows)
    about = {"command": provenance.command(), "commit": provenance.commit(), "machine": f"{os.cpu_count()} cores"}
    out.write_text(json.dumps({**about, "mounts": mounts, **total, "rows": rows}, indent=1) + "\n")
    return total
