"""Nobody reads what is no page of a document, sends too much, or asks through another site's page."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest
from driving import asked, sent, served
from typer.testing import CliRunner

from colmrl.cli.main import main_app
from colmrl.encoding import encode
from colmrl.models.retriever import Retriever
from colmrl.serving import run
from colmrl.serving.guard import Guard, loopback_names
from colmrl.serving.one_at_a_time import Busy, OneAtATime
from colmrl.serving.uploads import MAX_BYTES

SECRET = "a line that no one may read\n"


@pytest.fixture(scope="module")
def server(settings, sample, tmp_path_factory):
    """(address, data, a row whose picture is a link to a secret text of the same size)."""
    folder = tmp_path_factory.mktemp("served")
    data = shutil.copytree(sample / "test", folder / "data")
    (folder / "secret.txt").write_text(SECRET)
    config = settings(folder / "run", f"data.path={data}")
    Retriever.create(config).save(folder / "checkpoint")
    store = encode(config, folder / "checkpoint", data, folder / "store")
    picture = sorted((data / "images").iterdir())[3]
    secret = (folder / "secret.txt").read_bytes()
    (folder / "secret.txt").write_bytes(secret + b" " * (picture.stat().st_size - len(secret)))
    picture.unlink()
    picture.symlink_to(folder / "secret.txt")
    with served(config, store) as (url, desk):
        yield url, data, desk.answerer.documents.ids.index(picture.stem)


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../../../etc/passwd",
        "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/..%5c..%5cetc%5cpasswd",
        "//etc/passwd",
        "/etc/passwd",
        "/static/app.js",
        "/app.js/../desk.py",
        "/desk.py",
        "/.%00/app.js",
        "/api/thumbnail/../../app.js",
        "/api/thumbnail/..%2f..%2fetc%2fpasswd/0",
        "/api/thumbnail/0/..%2fsecret.txt",
        "/api/thumbnail/%2fetc%2fpasswd/0",
        "/api/thumbnail/-1/0",
        "/api/thumbnail/0/-1",
        "/api/thumbnail/0/1",
        "/api/thumbnail/24/0",
        "/api/thumbnail/99999999999999999999999/0",
        "/api/thumbnail/0/0?size=/etc/passwd",
        "/api/thumbnail/0/0%00",
        "/api/pictures/..%2f..%2f..%2fetc%2fpasswd",
        "/api/pictures/" + "0" * 32,
        "/api/explain/24?query=red",
        "/api/explain/..%2f..?query=red",
        "/docs",
        "/redoc",
    ],
)
def test_no_path_leads_to_a_file(path, server):
    status, headers, said = sent(server[0], path=path)
    assert 400 <= status < 500 and headers["content-type"] == "application/json"
    assert list(json.loads(said)) == ["error"] and b"root:" not in said and str(server[1]).encode() not in said


def test_a_link_in_the_place_of_a_picture_shows_nothing(server):
    url, data, row = server
    for path in (f"/api/thumbnail/{row}/0", f"/api/thumbnail/{row}/0?size=large"):
        status, _, said = sent(url, path=path)
        assert status == 400 and b"cannot be shown" in said and b"secret" not in said and b"read" not in said
        assert str(data).encode() not in said
    assert sent(url, path=f"/api/thumbnail/{(row + 1) % 24}/0")[0] == 200


def test_a_document_that_is_another_now_is_not_shown(server, monkeypatch):
    url, data, row = server
    victim = (row + 5) % 24
    name = asked(url, f"/api/explain/{victim}?query=red")[1]["id"]
    picture = data / "images" / f"{name}.png"
    before = picture.read_bytes()
    picture.write_bytes((data / "corpus.jsonl").read_bytes())
    status, said = asked(url, f"/api/thumbnail/{victim}/0")
    picture.write_bytes(before)
    assert status == 400 and said["error"].startswith(f"the data: '{name}' is another document now")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil", "", "[::2]"]
)
def test_another_name_for_this_machine_is_refused(host, server):
    for path in ("/", "/api/views", "/api/thumbnail/0/0"):
        status, headers, said = sent(server[0], path=path, headers={"Host": host})
        assert status == 403 and "not a name of this server" in json.loads(said)["error"]
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:99"])
def test_loopback_names_are_answered(host, server):
    assert sent(server[0], headers={"Host": host})[0] == 200


def test_which_addresses_are_of_this_machine_alone():
    assert {"localhost", "127.0.0.1", "127.0.0.2"} <= (loopback_names("127.0.0.2") or set())
    assert "[::1]" in (loopback_names("::1") or set()) and loopback_names("localhost")
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org"):
        assert loopback_names(host) is None


def test_the_page_of_another_site_gets_nothing(server):
    cross = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert sent(server[0], path="/api/views", headers=cross)[0] == 403
    assert sent(server[0], path="/", headers=cross)[0] == 200  # a link to it may be followed
    status, headers, _ = sent(server[0], "OPTIONS", "/api/search", headers={"Origin": "https://evil.example"})
    assert status == 405 and not [name for name in headers if name.startswith("access-control")]
    status, _, _ = sent(server[0], "POST", "/api/pictures", b"x", {"Content-Type": "text/plain"})
    assert status == 415


def test_browsers_are_told_to_run_nothing_but_the_page_itself(server):
    for path in ("/", "/app.js", "/style.css", "/api/views", "/nowhere", "/api/thumbnail/0/0"):
        _, headers, _ = sent(server[0], path=path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff" and "server" not in headers
    assert b"innerHTML" not in sent(server[0], path="/app.js")[2]
    assert b"http://" not in sent(server[0], path="/")[2].replace(b"http://www.w3.org", b"")


def test_too_much_is_refused_before_it_is_read(server):
    for path, most in (("/api/pictures", MAX_BYTES), ("/api/search", 64 << 10)):
        headers = {"Content-Length": str(most + 1), "Content-Type": "image/png"}
        status, _, said = sent(server[0], "POST", path, headers=headers)  # not one byte of the body is sent
        assert status == 413 and f"more than {most:,} bytes" in json.loads(said)["error"]
    assert sent(server[0], "GET", "/api/views", b"x")[0] == 413


def test_a_body_in_chunks_that_is_too_large_is_answered_when_all_is_sent(server):
    address = urlsplit(server[0])
    chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"POST /api/search HTTP/1.1\r\nHost: {address.netloc}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode() + 3 * chunk + b"0\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 413") and b'{"error": "/api/search: more than 65,536 bytes' in answer


def guarded(chunks, hosts=None, **most):
    """What a client is told that sends its body so; each chunk after a while."""
    got, told = [], []

    async def app(scope, receive, send):
        got.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        delay, body, more = chunks.pop(0)
        await asyncio.sleep(delay)
        return {"type": "http.request", "body": body, "more_body": more}

    async def send(message):
        told.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/pictures", "headers": []}
    asyncio.run(Guard(app, hosts, {"/api/pictures": 10}, 0.05)(scope, receive, send))
    return got, told[0]["status"]


def test_a_body_without_a_length_is_counted_and_a_slow_one_is_not_waited_for():
    assert guarded([(0, b"12345", True), (0, b"67890", False)]) == ([b"1234567890"], 200)
    assert guarded([(0, b"12345", True), (0, b"678901", False)]) == ([], 413)
    assert guarded([(0, b"12345", True), (0, b"6" * 36, True)]) == ([], 413)  # no more is read than four times as much
    assert guarded([(0, b"12345", True), (1, b"6", False)]) == ([], 408)
    assert guarded([(0, b"", False)], frozenset({"localhost"})) == ([], 403)  # no host at all


def test_connections_that_ask_for_nothing_keep_nobody_out(server):
    address = urlsplit(server[0])
    silent = [socket.create_connection((address.hostname, address.port)) for _ in range(80)]
    for connection in silent[::2]:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: loc")
    assert asked(server[0], "/api/views")[0] == 200
    for connection in silent:
        connection.close()


def test_more_requests_at_once_than_are_answered_are_told_so():
    told = []

    async def ask():
        full = asyncio.Event()

        async def app(scope, receive, send):
            await full.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                told.append(message["status"])
                full.set()  # the first answer is the refusal

        guard = Guard(app, None, {}, 5)
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await asyncio.gather(*(guard(scope, receive, send) for _ in range(65)))
        await guard(scope, receive, send)

    asyncio.run(ask())
    assert told == [503] + [200] * 65


def test_one_pass_at_a_time_and_none_is_waited_for_for_ever():
    running, most, begun = 0, 0, []

    def work(number, seconds=0.02):
        nonlocal running, most
        running += 1
        most, _ = max(most, running), begun.append(number)
        time.sleep(seconds)
        running -= 1
        return number

    async def ask():
        passes = OneAtATime(10, waiting=4)
        found = await asyncio.gather(*(passes.run(lambda n=n: work(n)) for n in range(4)))
        assert found == [0, 1, 2, 3] and most == 1
        crowd = [asyncio.ensure_future(passes.run(lambda n=n: work(n))) for n in range(5)]
        done = await asyncio.gather(*crowd, return_exceptions=True)
        assert done[:4] == [0, 1, 2, 3] and isinstance(done[4], Busy)
        passes.close()
        begun.clear()
        hasty = OneAtATime(0.05)
        done = await asyncio.gather(*(hasty.run(lambda n=n: work(n, 0.2)) for n in range(2)), return_exceptions=True)
        assert all(isinstance(one, Busy) for one in done)
        await asyncio.sleep(0.3)
        assert begun == [0]  # the other one was never begun
        hasty.close()

    asyncio.run(ask())


def test_questions_at_the_same_time_are_all_answered(server):
    answers = []
    ask = lambda: answers.append(asked(server[0], "/api/search", {"query": "red star", "view": "multi@64"}))  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for status, _ in answers] == [200] * 8
    assert len({json.dumps(said["results"]) for _, said in answers}) == 1


def test_a_port_that_is_taken_is_said_at_once(store):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        made = CliRunner().invoke(main_app, ["serve", "--store", str(store), "--port", port])
    assert made.exit_code == 2 and f"error: --port {port}, --host 127.0.0.1: Address already in use" in made.stderr


def test_what_cannot_be_served_is_refused(store, tmp_path):
    for flags, says in (
        (["--store", tmp_path], "not a store"),
        (["--store", store, "--view", "single@31"], "was not trained"),
        (["--store", store, "--index", tmp_path], "not an index"),
        (["--store", store, "--host", "no.such.host.invalid"], "give an address of this machine"),
        (["--store", store, "--checkpoint", tmp_path], "not a colmrl checkpoint"),
    ):
        made = CliRunner().invoke(main_app, ["serve", *map(str, flags), "--port", "0", "device=cpu", "threads=1"])
        assert made.exit_code == 2 and says in made.stderr, made.output


def test_whom_all_can_reach_is_warned(store, monkeypatch):
    monkeypatch.setattr(run, "serve", lambda *_: None)
    flags = ["--store", str(store), "--port", "0", "device=cpu", "threads=1"]
    for host, warned in (("0.0.0.0", True), ("127.0.0.1", False)):
        made = CliRunner().invoke(main_app, ["serve", *flags, "--host", host])
        assert made.exit_code == 0 and ("attention: 0.0.0.0 is no loopback address" in made.stderr) == warned


@pytest.mark.slow
def test_ctrl_c_ends_it_cleanly(store):
    flags = ["--store", str(store), "--port", "0", "device=cpu", "threads=1"]
    command = [sys.executable, "-m", "colmrl", "serve", *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    url = process.stdout.readline().split()[0]
    assert asked(url, "/api/search", {"query": "red"})[0] == 200
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0 and "Traceback" not in said and "Error" not in said, said
