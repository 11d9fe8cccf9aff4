"""What a person reads on the terminal."""

import pytest
from typer.testing import CliRunner

from colmrl.cli.common import show_table
from colmrl.cli.main import main_app


def shown(capsys, *lines):
    show_table(lines)
    return [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if "│" in line]


def test_numbers_stand_right_and_texts_left(capsys):
    lines = [
        ["wide name", "wide number", "wide share", "wide text"],
        ["a", "1,234.5", "7%", "x"],
        ["b", "-3", "", "9 x"],
    ]
    for row, (_, number, share, _) in zip(shown(capsys, *lines), lines[1:], strict=True):
        assert row[0].startswith((" a ", " b ")) and row[3].startswith((" x ", " 9 x "))
        assert row[1].endswith(f"  {number} ") and row[2].endswith(f"{share} ")


def test_a_long_path_is_folded_and_never_cut(capsys):
    path = "/a/long/folder" * 12
    rows = shown(capsys, ["index", "MB", "query ms"], [path, "12345.67", "0.12"])
    assert "".join(row[0].strip() for row in rows) == path and len(rows) > 1
    assert [row[1].strip() for row in rows] == ["12345.67"] + [""] * (len(rows) - 1)


def test_a_table_may_have_no_rows(capsys):
    assert shown(capsys, ["a", "b"]) == []


@pytest.mark.parametrize(
    ("command", "purpose"),
    [("mine", "Mine hard negatives from a store"), ("eval", "Judge a store"), ("store", "taking documents out of it.")],
)
def test_the_list_of_commands_says_what_each_is_for(command, purpose):
    text = " ".join(CliRunner().invoke(main_app, ["--help"]).stdout.split())
    assert f" {command} " in text and purpose in text and "... " not in text.partition("Commands:")[2]
