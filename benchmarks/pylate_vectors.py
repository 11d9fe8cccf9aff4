"""Run by PyLate's own interpreter: a ColBERT made of a folder, saved, and the vectors that it gives.

python pylate_vectors.py MODEL OUT < {"save": true, "options": {...}, "queries": [...], "documents": [...]}
"""

import json
import sys
from pathlib import Path

import numpy as np
from pylate import models


def main(folder: str, out: Path) -> None:
    asked = json.load(sys.stdin)
    model = models.ColBERT(folder, device="cpu", **asked.get("options", {}))
    if asked.get("save"):
        model.save(str(out / "model"))
    for kind, is_query in (("queries", True), ("documents", False)):
        vectors = [
            np.asarray(model.encode(text, is_query=is_query, show_progress_bar=False, convert_to_numpy=True))
            for text in asked[kind]
        ]
        np.save(out / f"{kind}.npy", np.concatenate(vectors))
        np.save(out / f"{kind}.lengths.npy", np.array([len(each) for each in vectors]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
