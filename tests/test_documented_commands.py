"""Every command that README, docs and recipes show has the flags that it is shown with."""

import re
from pathlib import Path

import pytest
import typer

from colmrl.cli.common import FirstIsMeant
from colmrl.cli.encode import encode_app
from colmrl.cli.evaluate import eval_app
from colmrl.cli.main import main_app
from colmrl.cli.mine import mine_app
from colmrl.cli.train import train_app

ROOT = Path(__file__).parents[1]
SCRIPTS = {"train.py": train_app, "encode.py": encode_app, "mine.py": mine_app, "eval.py": eval_app}
FILES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("colmrl/recipes/*.yaml")])
_COMMAND = re.compile(r"(?:colmrl (?:prepare |data )?[a-z-]+|(?:train|encode|mine|eval)\.py)(?=[ `])[^`|#]*")


def flags_of(shown: str) -> set[str] | None:
    """The flags of a shown command; None where it is no command of ours."""
    words = shown.split()
    command = typer.main.get_command(SCRIPTS.get(words[0], main_app))
    for word in words[1:3]:
        if not hasattr(command, "commands"):
            break
        if word not in command.commands and not isinstance(command, FirstIsMeant):
            return None
        command = command.commands.get(word) or next(iter(command.commands.values()))
    return {flag for parameter in command.params for flag in parameter.opts + parameter.secondary_opts} | {"--help"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_flags_that_are_shown_exist(path):
    text = re.sub(r" *\\\n#? *", " ", path.read_text())  # a command may go on in the next line
    for shown in (match.group() for line in text.splitlines() for match in _COMMAND.finditer(line)):
        known = flags_of(shown)
        if known is not None:
            asked = set(re.findall(r"(?<=\s)--?[a-z][\w-]*", shown))
            assert {flag.replace("_", "-") for flag in asked} <= known, shown


def test_a_wrong_flag_would_be_found():
    assert "--rooot" not in (flags_of("colmrl data check pages --rooot x") or set())
    assert {"--data", "--out"} <= (flags_of("colmrl data check pages") or set())
    assert "--protocol" in (flags_of("eval.py rerank --model x") or set()) & (flags_of("colmrl eval rerank") or set())
    assert "--store" in (flags_of("eval.py --store x") or set()) & (flags_of("colmrl eval --store x") or set())
    assert {"--triples"} <= (flags_of("train.py --config pages") or set()) and flags_of("colmrl is nice") is None
