import sys

import pytest

from colmrl.provenance import command


@pytest.mark.parametrize(
    ("argv", "typed"),
    [
        ([".venv/bin/colmrl", "loop", "--config", "demo"], "colmrl loop --config demo"),
        (["/x/colmrl/__main__.py", "loop"], "colmrl loop"),
        (["train.py", "model.query_prompt=Q: {text}"], "python train.py 'model.query_prompt=Q: {text}'"),
        (["benchmarks/b.py"], "python benchmarks/b.py"),
    ],
)
def test_a_command_is_kept_as_it_can_be_typed_again(argv, typed, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    assert command() == typed
