"""Who gets into a running JupyterLab, its kernels, FiftyOne's App and database: nobody but the person at it."""

import contextlib
import http.client
import json
import os
import re
import socket
import stat
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import zmq
from jupyter_client.connect import find_connection_file

from odkit.browsing import others, services
from tests.accounts import is_closed_to_others
from tests.browser.lab import Lab
from tests.kernels import run_code
from tests.security.conftest import Opened

pytestmark = [pytest.mark.notebook, pytest.mark.database]

NOBODY = 65534


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def ask(
    lab: Lab, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """A request with no more headers than these, and no redirect followed; `path` begins below the base URL."""
    address = urllib.parse.urlsplit(lab.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    try:
        connection.request(method, address.path + path, body, headers or {})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def cookies(opened: Opened) -> str:
    """What a browser sends by itself once a person has come in."""
    answer = ask(opened.lab, "GET", f"lab?token={opened.lab.token}")
    given = answer.headers.get_all("Set-Cookie") or []
    (login,) = [cookie for cookie in given if cookie.startswith("username-")]
    assert {"HttpOnly", "SameSite=Lax"} <= {part.strip() for part in login.split(";")}
    return "; ".join(cookie.partition(";")[0] for cookie in given)


# -- without the token -------------------------------------------------------------------------------------------------

# What anybody may have: the version, the form that asks for the token and what it looks like.
OPEN = re.compile(r"/(login|logout|static/.*|lab/extensions/.*|\(?(robots|favicon).*|api)\$")


def example(pattern: str) -> str:
    """A path that a route's regular expression matches."""
    from re import _parser  # type: ignore[attr-defined]

    def texts(parts: Any) -> str:
        return "".join(text(str(kind), value) for kind, value in parts)

    def text(kind: str, value: Any) -> str:
        if kind == "LITERAL":
            return chr(value)
        if kind == "SUBPATTERN":
            return texts(value[-1])
        if kind == "BRANCH":
            return texts(value[1][0])
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            return texts(value[2]) * max(1, value[0])
        if kind == "IN":
            first, *_ = value
            if str(first[0]) == "NEGATE":
                return "a"
            if str(first[0]) == "CATEGORY":
                return "1"  # a digit, which is a letter of a word too
            return chr(first[1] if str(first[0]) == "LITERAL" else first[1][0])
        return "a" if kind in ("ANY", "NOT_LITERAL") else ""

    found = texts(_parser.parse(pattern))
    assert re.fullmatch(pattern, found), (pattern, found)
    return found.lstrip("/")


def test_every_path_asks_for_the_token(opened: Opened) -> None:
    """All that the running server routes."""
    # JupyterLab's list of licences: without the token it says nothing at all, and keeps who asks waiting
    paths = [path for path, _ in opened.routes if not OPEN.match(path) and "/licenses/" not in path]
    assert {"/fiftyone/(.*)$", "/api/kernels$", r"/proxy/(\d+)(/.*|)$", "/files/(.*)$"} <= set(paths)
    got_in = []
    for path in paths:
        for method in ("GET", "POST", "DELETE"):
            answer = ask(opened.lab, method, example(path), {"Authorization": "token wrong"}, b"{}")
            moved = answer.status == 302 and answer.headers["Location"].startswith("/") and not answer.body
            if not moved and answer.status not in (401, 403, 404, 405):
                got_in.append((method, path, answer.status, answer.body[:100]))
    assert got_in == []
    for path in ("fiftyone/", "fiftyone/graphql", f"fiftyone/media?filepath={opened.picture}", "lab"):
        answer = ask(opened.lab, "GET", path)
        assert "/login?" in answer.headers["Location"], path


def test_every_websocket_asks_for_the_token_and_for_its_own_page(opened: Opened, cookies: str) -> None:
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert (
        ask(opened.lab, "POST", "api/terminals", {"Authorization": f"token {opened.lab.token}"}).status == 200
    )
    paths = [example(path) for path, is_socket in opened.routes if is_socket]
    assert {"terminals/websocket/1", "api/events/subscribe", "fiftyone/a"} <= set(paths)
    for path in [*paths, f"api/kernels/{opened.kernel}/channels", "fiftyone/graphql"]:
        assert ask(opened.lab, "GET", path, upgrade).status == 403, path
        foreign = {**upgrade, "Cookie": cookies, "Origin": "http://127.0.0.1:1"}
        is_there = path != "api/kernels/1-1-1-1-1/channels"
        assert ask(opened.lab, "GET", path, foreign).status == (403 if is_there else 404), path


# -- a web page in the same browser ------------------------------------------------------------------------------------

# As a browser of today says it, of a site elsewhere, of another port of this machine; and one that says less.
PAGES = {
    "elsewhere": {
        "Origin": "https://elsewhere.example",
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "cors",
    },
    "another port": {
        "Origin": "http://127.0.0.1:1",
        "Sec-Fetch-Site": "same-site",
        "Sec-Fetch-Mode": "no-cors",
    },
    "an old browser": {"Origin": "http://127.0.0.1:1"},
    "a sandbox": {"Origin": "null"},
}
OPERATOR = json.dumps({"operator_uri": "@voxel51/operators/list_files", "params": {}}).encode()
QUERY = json.dumps({"query": "{ __typename }"}).encode()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_another_address_gets_nothing_done(page: str, opened: Opened, cookies: str) -> None:
    """Though the browser adds the login by itself: neither read nor written, at JupyterLab or at the App."""
    headers = {**PAGES[page], "Cookie": cookies, "Content-Type": "text/plain"}
    for method, path, body in [
        ("POST", "api/contents", b"{}"),
        ("POST", "api/kernels", b"{}"),
        ("DELETE", f"api/kernels/{opened.kernel}", None),
        ("PUT", "api/contents/made.txt", b'{"type": "file", "format": "text", "content": ""}'),
        ("POST", "fiftyone/operators/execute", OPERATOR),
        ("POST", "fiftyone/graphql", QUERY),
        ("POST", "fiftyone/event", b"{}"),
        ("GET", f"fiftyone/media?filepath={opened.picture}", None),
    ]:
        answer = ask(opened.lab, method, path, headers, body)
        assert answer.status in (403, 404), (path, answer)
        assert "Access-Control-Allow-Origin" not in answer.headers
    assert not (opened.lab.folder / "made.txt").exists()


def test_its_own_page_and_a_link_are_served(opened: Opened, cookies: str) -> None:
    own = {"Cookie": cookies, "Origin": opened.lab.url.rstrip("/"), "Content-Type": "application/json"}
    for told in ({"Sec-Fetch-Site": "same-origin"}, {}):
        answer = ask(opened.lab, "POST", "fiftyone/graphql", own | told, QUERY)
        assert (answer.status, json.loads(answer.body)) == (200, {"data": {"__typename": "Query"}})
    link = {"Cookie": cookies, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    answer = ask(opened.lab, "GET", "fiftyone/", link)
    assert answer.status == 200
    assert "frame-ancestors 'self'" in answer.headers["Content-Security-Policy"]


def test_a_link_gives_the_app_no_plugins_of_its_own(opened: Opened, cookies: str) -> None:
    """The App's page loads scripts from below the path that its address calls `proxy`."""
    link = {"Cookie": cookies, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    folder = opened.lab.folder
    for place in (
        *("/files/data/", "//elsewhere.example/", "/", "", "//fiftyone/", "%2Ffiles%2Fdata%2F", "%252Ffiles"),
        f"/fiftyone/media?filepath={folder}/data/&x=/fiftyone/",
        *("/fiftyone/&proxy=/files/", "/files/&proxy=/fiftyone/", "/fiftyone/&%70roxy=/files/"),
    ):
        for path in ("fiftyone/", "fiftyone/datasets/demo"):
            assert ask(opened.lab, "GET", f"{path}?notebook=true&proxy={place}", link).status == 403, place
    for place in ("/fiftyone/", "%2Ffiftyone%2F", "%252Ffiftyone%252F"):
        answer = ask(opened.lab, "GET", f"fiftyone/datasets/demo?proxy={place}", link)
        assert (answer.status, b"<script" in answer.body) == (200, True)


@pytest.mark.parametrize("name", ["page.html", "picture.svg", "page.jpg", "page"])
def test_a_file_opened_by_itself_runs_nothing(name: str, opened: Opened, cookies: str) -> None:
    """A data set may bring HTML; on JupyterLab's own address its script could start kernels."""
    (opened.lab.folder / name).write_text(
        "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
    )
    link = {"Cookie": cookies, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    for path in (f"fiftyone/media?filepath={opened.lab.folder / name}", f"files/{name}"):
        answer = ask(opened.lab, "GET", path, {**link, "Referer": opened.lab.url})
        assert b"alert" in answer.body
        rules = [rule.strip().split() for rule in answer.headers["Content-Security-Policy"].split(";")]
        (sandbox,) = [words for words in rules if words[:1] == ["sandbox"]]
        assert "allow-same-origin" not in sandbox
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_a_name_that_leads_here_is_not_enough(opened: Opened) -> None:
    """DNS rebinding: a site's own name made to mean this machine, so that its page is of the same address."""
    for path in ("api/contents", "fiftyone/", "lab"):
        headers = {"Host": "elsewhere.example", "Authorization": f"token {opened.lab.token}"}
        assert ask(opened.lab, "GET", path, headers).status == 403


# -- another account of this machine -----------------------------------------------------------------------------------


def processes_of(lab: Lab) -> list[psutil.Process]:
    """JupyterLab, its kernels and all that they started, FiftyOne's two services among them."""
    root = psutil.Process(lab.process.pid)
    marks = (str(services.app_socket(lab.process.pid)), str(lab.database))
    beside = [
        p for p in psutil.process_iter(["cmdline"]) if any(m in (p.info["cmdline"] or ()) for m in marks)
    ]
    return list(
        {process.pid: process for process in [root, *root.children(recursive=True), *beside]}.values()
    )


def test_what_listens(opened: Opened) -> None:
    """JupyterLab on loopback, the kernel's sockets, and two unix sockets that are closed to others."""
    names, ports, sockets = set(), {}, set()
    for process in processes_of(opened.lab):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended since
            names.add(process.name())
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN:
                    assert one.laddr.ip == "127.0.0.1", (process, one)
                    ports[one.laddr.port] = process.pid
            sockets |= {one.laddr for one in process.net_connections("unix") if one.laddr.startswith("/")}
    assert {"jupyter-lab", "mongod"} <= names
    with open(connection_file(opened)) as file:
        told = json.load(file)
    kernels = {told[name] for name in ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")}
    alone = {port for port, pid in ports.items() if port not in kernels}
    assert urllib.parse.urlsplit(opened.lab.url).port in alone
    assert kernels <= set(ports)
    kernel = {ports[port] for port in kernels}
    rest = {port for port in alone if ports[port] not in kernel}  # ipykernel's debugger has two of its own
    assert rest == {urllib.parse.urlsplit(opened.lab.url).port}
    ours = {Path(path) for path in sockets if Path(path).parent == services.runtime_folder()}
    assert len(ours) == 2
    assert all(map(is_closed_to_others, ours))


def connection_file(opened: Opened) -> str:
    return find_connection_file(f"kernel-{opened.kernel}.json")


def test_keys_and_tokens_lie_in_files_of_ones_own(opened: Opened) -> None:
    folder = Path(connection_file(opened)).parent
    told = folder / f"jpserver-{opened.lab.process.pid}.json"
    assert opened.lab.token in told.read_text()
    for path in (folder, told, Path(connection_file(opened)), folder / "jupyter_cookie_secret"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_nobody_listens_in_to_a_kernel(opened: Opened) -> None:
    """What a cell prints goes out on a port to which any account can connect."""
    told = json.loads(Path(connection_file(opened)).read_text())
    with zmq.Context() as context, context.socket(zmq.SUB) as stranger, context.socket(zmq.SUB) as friend:
        for one in (stranger, friend):
            one.linger = 0
            one.subscribe(b"")
        friend.curve_serverkey = told["curve_publickey"].encode()
        friend.curve_publickey, friend.curve_secretkey = zmq.curve_keypair()
        for one in (stranger, friend):
            one.connect(f"tcp://{told['ip']}:{told['iopub_port']}")
        heard = b""
        for _ in range(20):  # a subscription takes a moment to arrive
            assert "secret" in run_code(opened.lab.url, opened.lab.token, opened.kernel, "print('secret')")
            while friend.poll(500):
                heard += b"".join(friend.recv_multipart())
            if b"secret" in heard:
                break
        assert b"secret" in heard, "who knows the key hears it"
        assert not stranger.poll(500)


def test_what_others_started_is_not_passed_on(opened: Opened, cookies: str) -> None:
    """A page from another account's port would stand on JupyterLab's own address, with the login handed to it."""
    code = """if True:
        import http.server, os, sys
        server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        if sys.argv[1] != "0":
            os.setgroups([]); os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
            import socket
            server.socket.close()
            server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        print(server.server_port, flush=True)
        server.serve_forever()
    """
    for account in (0, NOBODY) if os.getuid() == 0 else (0,):
        program = [sys.executable, "-c", code, str(account)]
        with subprocess.Popen(
            program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd="/"
        ) as one:
            try:
                assert one.stdout is not None
                port = int(one.stdout.readline())
                for path in (
                    *(f"proxy/{port}/", f"proxy/absolute/{port}/", f"proxy/localhost:{port}/"),
                    *(f"proxy/%6cocalhost:{port}/", f"proxy/absolute/127%2e0.0.1:{port}/"),
                ):
                    for asked in (path, path + "proc/version"):
                        answer = ask(opened.lab, "GET", asked, {"Cookie": cookies})
                        assert (answer.status == 403) == bool(account), answer
                        assert (b"another account" in answer.body.lower()) == bool(account)
            finally:
                one.kill()


def test_whose_port_it_is() -> None:
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        port = mine.getsockname()[1]
        assert others.listeners(port) == set(), "it does not listen yet"
        assert others.is_others(f"/proxy/{port}/"), "another account's might, a moment later"
        mine.listen()
        assert others.listeners(port) == {os.getuid()}
        assert not others.is_others(f"/proxy/{port}/")
    for path in (f"/proxy/{port}", f"/proxy/absolute/%6Cocalhost:{port}/x", f"/proxy/127.0.0.1:{port}/"):
        assert others.is_others(path), path
    assert others.is_others(f"/aXb/proxy/{port}/", "/a.b/"), "a route's base is a regular expression"
    for path in ("/api/contents", f"/files/proxy/{port}/", f"/proxy/another.example:{port}/"):
        assert not others.is_others(path), path
