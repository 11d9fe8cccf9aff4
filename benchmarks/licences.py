"""Licences of everything that requirements.txt brings in, itself and what it requires, as installed here.

    python benchmarks/run.py licences            # a Markdown table, for docs/safety.md

As the packages' own metadata say: License-Expression (PEP 639), else the classifiers, else the first line of License.
"""

import re
import sys
from collections import defaultdict
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
# What packages write otherwise than SPDX does.
_SPDX = {
    "Apache Software License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache": "Apache-2.0",
    "MIT License": "MIT",
    "BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC",
}


def main(argv: list[str] | None = None) -> None:
    if argv:
        sys.exit(__doc__)
    by_licence: dict[str, list[str]] = defaultdict(list)
    for name in sorted(installed(ROOT / "requirements.txt"), key=str.lower):
        by_licence[licence_of(metadata.metadata(name))].append(name)
    print("| licence | packages | which |\n|---|---|---|")
    for licence, names in sorted(by_licence.items(), key=lambda pair: -len(pair[1])):
        print(f"| {licence} | {len(names)} | {', '.join(names)} |")
    print(f"\n{sum(map(len, by_licence.values()))} packages")


def installed(requirements: Path) -> set[str]:
    """Names of what the file lists and of what that requires in turn, extras left out, as far as it is installed."""
    lines = (line.partition("#")[0].strip() for line in requirements.read_text().splitlines())
    waiting, found = [match[0] for line in lines if (match := _NAME.match(line))], dict[str, str]()
    while waiting:
        name = waiting.pop()
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform, or of another Python
            continue
        found[key] = distribution.metadata["Name"]
        for required in distribution.requires or ():
            match = _NAME.match(required)
            if match and "extra ==" not in required:
                waiting.append(match[0])
    return set(found.values())


def licence_of(about: metadata.PackageMetadata) -> str:
    if about.get("License-Expression"):
        return str(about["License-Expression"])
    classes = [value.rpartition(" :: ")[2] for value in about.get_all("Classifier") or () if "License ::" in value]
    said = [one for one in classes if one != "OSI Approved"] or [(about.get("License") or "not said").split("\n")[0]]
    return " / ".join(_SPDX.get(one.strip(), one.strip())[:60] for one in said)


if __name__ == "__main__":
    main()
