"""For the page of page.py: what was injected, fed in and exchanged, and how it came out."""

from typing import Any


def safety(found: dict[str, Any]) -> list[str]:
    rows = [cells for name, read in READERS.items() if name in found for cells in read(found[name])]
    lines = ["| what | tried | as it should | otherwise | command | commit |", "|---|---|---|---|---|---|"]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    return ["## When things go wrong, and between libraries", "", *lines]


def _kills(content: dict[str, Any]) -> list[list[str]]:
    return [
        [
            f"kill -9: {row['case']}",
            f"{row['kills']} kills in {row['rounds']} rounds",
            f"{row['equal']} rounds end in equal bytes",
            str(row["rounds"] - row["equal"]),
            *_source(content),
        ]
        for row in content["rows"]
    ]


def _faults(content: dict[str, Any]) -> list[list[str]]:
    """A row a stage."""
    lines = []
    for stage in dict.fromkeys(row["stage"] for row in content["rows"]):
        rows = [row for row in content["rows"] if row["stage"] == stage]
        tried, survived = (sum(row[key] for row in rows) for key in ("injected", "survived"))
        kinds = ", ".join(f"{row['injected']} {row['fault']}" for row in rows)
        lost = sum(len(row["lost"]) for row in rows)
        lines.append([f"faults: {stage}", f"{tried}: {kinds}", str(survived), f"lost: {lost}", *_source(content)])
    return lines


def _fuzz(content: dict[str, Any]) -> list[list[str]]:
    readers = len(content["rows"])
    tried = f"{content['inputs']:,} inputs to {readers} readers"
    right = f"{content['read']:,} read, {content['refused']:,} refused in a line"
    return [[f"fuzzing ({content['engine']})", tried, right, f"failures: {content['failures']}", *_source(content)]]


def _mutants(content: dict[str, Any]) -> list[list[str]]:
    return [
        [
            f"mutants: {row['module']}",
            f"{row['mutants']} of {row['changes']:,} changes",
            f"{row['killed']} noticed ({row['low']:.0%} to {row['high']:.0%})",
            f"not noticed: {len(row['survived'])}",
            *_source(content),
        ]
        for row in content["rows"]
    ]


def _coverage(content: dict[str, Any]) -> list[list[str]]:
    tried, right = (
        f"{content['lines']:,} lines of colmrl/",
        f"{content['covered']:,} are run ({content['percent']:.1f}%)",
    )
    return [["line coverage of all tests", tried, right, str(content["lines"] - content["covered"]), *_source(content)]]


def _interop(content: dict[str, Any]) -> list[list[str]]:
    lines = []
    for direction, tool in dict.fromkeys((row.get("direction"), row.get("tool")) for row in content["rows"]):
        rows = [row for row in content["rows"] if (row.get("direction"), row.get("tool")) == (direction, tool)]
        errors = [row["parity_error"] for row in rows if row.get("parity_error") is not None]
        loaded = sum(bool(row.get("loads")) for row in rows)
        worst = f", largest difference {max(errors):.0e}" if errors else ""
        lines.append(
            [
                f"{'read from' if direction == 'source' else 'written for'} {tool}",
                f"{len(rows)} models",
                f"{loaded} load{worst}",
                str(len(rows) - loaded),
                *_source(content),
            ]
        )
    return lines


def _source(content: dict[str, Any]) -> list[str]:
    return [f"`{content['command']}`", f"{content['commit']}"]


READERS = {"kills": _kills, "faults": _faults, "fuzz": _fuzz, "mutants": _mutants, "coverage": _coverage}
READERS |= {"interop": _interop}
