"""Lines that are read again give the same, in forked processes at once; and bytes are read as json reads."""

import json
import os
from pathlib import Path

import pytest

from colmrl.data.beir import read_corpus
from colmrl.data.jsonl import read_rows
from colmrl.errors import InputError

TEXTS = [f"text {n} " + "ä€x"[n % 3] * (n + 1) for n in range(200)]


def test_forked_processes_read_one_file_at_the_same_time(tmp_path):
    lines = [json.dumps({"_id": f"d{n}", "text": text}, ensure_ascii=n % 2 == 0) for n, text in enumerate(TEXTS)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    corpus = read_corpus(tmp_path)
    assert [document.text for document in corpus] == TEXTS  # the file is open from here on
    children = []
    for first in (0, 70, 140):
        if (child := os.fork()) == 0:
            right = all(corpus[n % 200].text == TEXTS[n % 200] for n in range(first, first + 2000))
            os._exit(0 if right else 1)
        children.append(child)
    assert all(corpus[n % 200].text == TEXTS[n % 200] for n in range(2000))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": "\xc3\xa4"}',
        b'\xef\xbb\xbf{"a": 1}',
        b' { "a" : 1 }',
        '{"a": 1}'.encode("utf-16-le"),
        b"{}",
        b'{"a": NaN}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\xff"}',
        b'{"a": 1',
        b'{"',
        b"\xff\xfe{",
        b'{"a": 1} x',
        b"[" * 100_000,
    ],
)
def test_a_line_is_what_json_makes_of_its_bytes(tmp_path: Path, line):
    (tmp_path / "rows.jsonl").write_bytes(line)
    try:
        expected = repr(json.loads(line))
    except (ValueError, RecursionError):
        with pytest.raises(InputError, match=r"rows\.jsonl:1: line: not JSON"):
            list(read_rows(tmp_path / "rows.jsonl", lambda row: row.values))
    else:
        assert [repr(values) for values in read_rows(tmp_path / "rows.jsonl", lambda row: row.values)] == [expected]
