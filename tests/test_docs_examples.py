"""The examples of docs/api.md do what they show."""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_FENCED = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_alone(text: str) -> str:
    """Everything but the fenced Python as empty lines, so that line numbers stay."""
    kept = [""] * (text.count("\n") + 1)
    for block in _FENCED.finditer(text):
        first = text[: block.start(1)].count("\n")
        lines = block.group(1).splitlines()
        kept[first : first + len(lines)] = lines
    return "\n".join(kept)


@pytest.mark.slow
def test_the_examples_of_the_api_run_as_they_stand(tmp_path, monkeypatch):
    path = ROOT / "docs" / "api.md"
    monkeypatch.chdir(tmp_path)
    examples = doctest.DocTestParser().get_doctest(code_alone(path.read_text()), {}, path.name, str(path), 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    found = runner.run(examples, out=said.append)
    assert found.attempted > 20 and not found.failed, "".join(said)


def test_a_wrong_example_would_be_found():
    text = "text\n```python\n>>> 1 + 1\n3\n\n```\nmore\n"
    examples = doctest.DocTestParser().get_doctest(code_alone(text), {}, "x", "x", 0)
    assert examples.examples[0].lineno == 2
    assert doctest.DocTestRunner().run(examples, out=[].append).failed == 1
