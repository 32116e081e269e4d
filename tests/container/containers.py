"""Containers of the built image, run by docker or podman, for tests against what really runs.

Settings, from the environment (the Makefile sets the first two): ODKIT_ENGINE (docker or podman), ODKIT_IMAGE
(odkit), ODKIT_ENGINE_FLAGS (before `run`), ODKIT_RUN_FLAGS (after it).
"""

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

from tornado.httpclient import HTTPRequest
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

TOKEN = "a-token-for-tests"
IMAGE = os.environ.get("ODKIT_IMAGE", "odkit")


def engine() -> list[str]:
    name = os.environ.get("ODKIT_ENGINE") or next((e for e in ("docker", "podman") if shutil.which(e)), None)
    assert name, "neither docker nor podman is installed: these tests need one of them"
    return [name, *shlex.split(os.environ.get("ODKIT_ENGINE_FLAGS", ""))]


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


class Container:
    """One container: what it answers, says and leaves behind."""

    def __init__(self, *command, options=(), work=None, port=None):
        self.name = f"odkit-test-{uuid.uuid4().hex[:8]}"
        self.port = port
        self.cookies = None  # JupyterLab's, from log_in on; without, each request stands for itself
        self.started = time.monotonic()
        flags = shlex.split(os.environ.get("ODKIT_RUN_FLAGS", ""))
        publish = ["-p", f"127.0.0.1:{port}:8888"] if port else []
        volume = ["-v", f"{work}:/work"] if work else []
        run = ["run", "-d", "--name", self.name, *flags, *publish, *volume, *options, IMAGE, *command]
        done = subprocess.run([*engine(), *run], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def logs(self) -> str:
        done = subprocess.run([*engine(), "logs", self.name], capture_output=True, text=True)
        return done.stdout + done.stderr

    def exec(self, *command, user=None, check=True) -> subprocess.CompletedProcess:
        who = ["--user", user] if user else []
        done = subprocess.run(
            [*engine(), "exec", *who, self.name, *command], capture_output=True, text=True, timeout=1800
        )
        assert not check or done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done

    def running(self) -> bool:
        return self.inspect("{{.State.Running}}") == "true"

    def inspect(self, what: str) -> str:
        done = subprocess.run(
            [*engine(), "inspect", "--format", what, self.name], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def wait(self, seconds: float = 600) -> int:
        """The exit status, once the container has ended by itself."""
        done = subprocess.run([*engine(), "wait", self.name], capture_output=True, text=True, timeout=seconds)
        return int(done.stdout)

    def stop(self, seconds: int = 120) -> None:
        subprocess.run([*engine(), "stop", "-t", str(seconds), self.name], capture_output=True, check=True)

    def health(self) -> str:
        """ "starting", "healthy" or "unhealthy", as the engine has it."""
        if (
            engine()[0] == "podman"
        ):  # which leaves the interval to systemd, and asks when told to where there is none
            subprocess.run([*engine(), "healthcheck", "run", self.name], capture_output=True)
        return self.inspect("{{.State.Health.Status}}")

    def remove(self) -> None:
        subprocess.run([*engine(), "rm", "-f", "-v", self.name], capture_output=True)

    def get(self, path, *, token=TOKEN, data=None) -> tuple[int, bytes]:
        """Status and body of a request to JupyterLab's port; redirects are not followed; 0 where nobody answers."""
        headers = {"Authorization": f"token {token}"} if token else {}
        if data is not None and data[:1] == b"{":
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, headers=headers)
        try:
            handlers = [NoRedirect, *([self.cookies] if self.cookies else [])]
            with urllib.request.build_opener(*handlers).open(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def log_in(self, password: str) -> "Container":
        """Fill in JupyterLab's form, as a browser does."""
        self.cookies = urllib.request.HTTPCookieProcessor()
        status, page = self.get("/login", token=None)
        assert status == 200
        assert b'type="password"' in page
        xsrf = next(cookie.value for cookie in self.cookies.cookiejar if cookie.name == "_xsrf")
        self.get(
            "/login", token=None, data=urllib.parse.urlencode({"_xsrf": xsrf, "password": password}).encode()
        )
        return self

    def ready(self, base="/", *, token=TOKEN, seconds=120) -> float:
        """Wait until JupyterLab answers; how long that took since the container was started, in seconds."""
        deadline = time.monotonic() + seconds
        while self.get(f"{base}api/status", token=token)[0] != 200:
            assert time.monotonic() < deadline and self.running(), self.logs()
            time.sleep(0.1)
        return time.monotonic() - self.started

    def said(self, text: str, *, seconds=120) -> str:
        """The log, once a text is in it."""
        deadline = time.monotonic() + seconds
        while text not in (log := self.logs()):
            assert self.running() or text in self.logs(), self.logs()
            assert time.monotonic() < deadline, log
            time.sleep(0.3)
        return log

    def run_in_kernel(self, code: str, *, base="/", seconds=300) -> str:
        """Run code in a new kernel through JupyterLab's own API, as a browser does; what it printed."""
        status, body = self.get(f"{base}api/kernels", data=b"{}")
        assert status == 201, body
        kernel = json.loads(body)["id"]
        try:
            return IOLoop(make_current=False).run_sync(
                lambda: executed(f"http://127.0.0.1:{self.port}{base}", TOKEN, kernel, code), timeout=seconds
            )
        finally:
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.port}{base}api/kernels/{kernel}",
                method="DELETE",
                headers={"Authorization": f"token {TOKEN}"},
            )
            with contextlib.suppress(OSError):
                urllib.request.urlopen(request, timeout=60)


async def executed(url: str, token: str, kernel: str, code: str) -> str:
    """What code printed in a kernel of the Jupyter server at an address (ends with its base URL)."""
    there = f"{url.replace('http://', 'ws://', 1)}api/kernels/{kernel}/channels"
    channel = await websocket_connect(HTTPRequest(there, headers={"Authorization": f"token {token}"}))
    header = {"msg_id": uuid.uuid4().hex, "username": "", "session": uuid.uuid4().hex, "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}}
    message = {"header": {**header, "msg_type": "execute_request"}, "parent_header": {}, "metadata": {}}
    await channel.write_message(json.dumps({**message, "content": content, "channel": "shell"}))
    printed, trouble = "", []
    awaited = {"execute_reply", "idle"}  # what was printed may come after the reply
    while awaited:
        answer = json.loads(await channel.read_message())
        if answer["parent_header"].get("msg_id") != header["msg_id"]:
            continue
        content = answer["content"]
        if answer["msg_type"] == "stream":
            printed += content["text"]
        if answer["msg_type"] == "execute_reply" and content["status"] != "ok":
            trouble = content["traceback"]
        awaited -= {answer["msg_type"], content.get("execution_state")}
    channel.close()
    assert not trouble, "\n".join(trouble) + printed
    return printed


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def own(folder: Path, uid: int) -> Path:
    """A folder that belongs to somebody (root may give folders away; who is not root tests with their own id)."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, uid, uid)
    return folder
