"""Where a database is, wrong addresses, servers that do not answer as Qdrant does, and secrets."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from made_database import write_made
from typer.testing import CliRunner

from colmrl.cli.main import main_app
from colmrl.database import Address
from colmrl.database.address import is_database
from colmrl.errors import InputError


def call(*arguments):
    return CliRunner().invoke(main_app, [str(argument) for argument in arguments])


def refused(result, says):
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert says in line


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_made(tmp_path_factory.mktemp("made"))


def test_an_address_names_place_collection_and_documents(tmp_path):
    address = Address.parse("https://db.example:6333?meta.book=atlas&meta.page=7&meta.page=8#pages")
    assert (address.place, address.collection, address.remote) == ("https://db.example:6333", "pages", True)
    assert address.where == {"meta.book": ("atlas",), "meta.page": ("7", 7, "8", 8)}
    assert (
        Address.parse("db", "pages").folder.parts == ("db", "pages") and Address.parse("db").collection == "documents"
    )
    assert is_database("http://x:1") and is_database("db#pages") and not is_database(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the database's address is empty"),
        ("localhost:6333", "a folder, or a server? For a server give http://localhost:6333"),
        ("s3://bucket/pages", "not a Qdrant server's address: give http(s)://HOST:6333"),
        ("http://me:geheim@db:6333", "db: a secret in the address: give it as --token, or in QDRANT_API_KEY"),
        ("db?book", "?book: not FIELD=VALUE"),
        ("db#../other", "collection '../other': not a name"),
    ],
)
def test_a_wrong_address_is_said(text, says):
    with pytest.raises(InputError) as error:
        Address.parse(text)
    assert says in str(error.value) and "geheim" not in str(error.value)


class _Door(BaseHTTPRequestHandler):
    """No Qdrant: writes down which token it is shown, and refuses or talks of something else."""

    shown, status = [], 401

    def do_GET(self):
        self.shown.append(self.headers.get("api-key"))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"<html>welcome</html>")

    def log_message(self, *_):
        pass


@pytest.fixture
def door():
    server = HTTPServer(("127.0.0.1", 0), _Door)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def export(store, to, *more):
    return call("export", "index", "--store", store, "--to", to, "--views", "multi@16", "threads=1", *more)


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection:UserWarning")
def test_a_server_that_does_not_answer_refuses_or_is_another_is_said(made, door, monkeypatch):
    refused(export(made, "http://127.0.0.1:9"), "http://127.0.0.1:9: no Qdrant server answers")
    monkeypatch.setenv("QDRANT_API_KEY", "geheim")
    result = export(made, door)
    refused(result, f"{door}: refuses the token: give --token, or set QDRANT_API_KEY")
    monkeypatch.setattr(_Door, "status", 404)
    result = export(made, door, "--token", "secret")
    refused(result, f"{door}#documents: answers 404")
    assert _Door.shown == ["geheim", "secret"]
    monkeypatch.setattr(_Door, "status", 200)
    refused(export(made, door), f"{door}: no Qdrant server answers")


def test_wrong_flags_are_said(made, tmp_path):
    refused(export(made, tmp_path / "db", "--collection", "a/b"), "collection 'a/b': not a name")
    refused(export(made, f"{tmp_path / 'db'}?meta.book=atlas"), "?FIELD=VALUE is for searching: leave it out")
    refused(export(made, f"{tmp_path / 'db'}#a", "--collection", "b"), "names collection 'a', and --collection 'b'")
    result = call("export", "index", "--store", made, "--to", tmp_path / "db", "--views", "multi@12")
    refused(result, "view 'multi@12' was not trained")
    assert not (tmp_path / "db").exists()


def test_a_token_is_written_nowhere(made, tmp_path):
    result = export(made, tmp_path / "db", "--token", "geheim", "--queries", "2", "index.gpu=false")
    assert result.exit_code == 0 and "90 documents: 90 new" in result.stdout, result.stderr
    assert "geheim" not in result.stdout + result.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"geheim" in path.read_bytes()]


def test_search_by_the_database_is_search(store, tmp_path):
    """As a person asks: of the tiny model's store, with a text."""
    made = call("export", "index", "--store", store, "--to", tmp_path / "db", "--views", "single@128,multi@64")
    assert made.exit_code == 0, made.stderr
    ask = ["search", "--store", store, "--query", "a red circle", "--k", 4, "device=cpu", "index.gpu=false"]
    plan = ["--view", "single@128/20+multi@64"]
    exact = call(*ask, *plan, "--out", tmp_path / "exact")
    asked = call(*ask, *plan, "--index", tmp_path / "db", "--out", tmp_path / "asked")
    assert asked.exit_code == 0, asked.stderr
    scores = [[line.split("│")[3] for line in each.stdout.splitlines() if "│" in line] for each in (exact, asked)]
    assert scores[0] == scores[1] and len(scores[0]) == 4
    refused(call(*ask, "--index", f"{tmp_path / 'db'}#pages"), "db#pages: no such collection")
    refused(call(*ask, "--index", tmp_path / "nothing"), "nothing")
