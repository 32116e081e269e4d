"""Code run in a kernel of a running JupyterLab, through its own API, as a browser does."""

import asyncio
import json
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor

from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect


def start_kernel(url: str, token: str) -> str:
    """The id of a new kernel of the JupyterLab at `url`, which ends with its base URL."""
    request = urllib.request.Request(f"{url}api/kernels", data=b"{}", headers=_headers(token))
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["id"]


def stop_kernel(url: str, token: str, kernel: str) -> None:
    request = urllib.request.Request(f"{url}api/kernels/{kernel}", method="DELETE", headers=_headers(token))
    urllib.request.urlopen(request, timeout=60).close()


def run_code(url: str, token: str, kernel: str, code: str, *, seconds: float = 300) -> str:
    """Run code in a kernel; what it printed. What it raises fails the test."""
    work = asyncio.wait_for(_execute(url, token, kernel, code), seconds)
    with ThreadPoolExecutor(1) as thread:  # in this one the browser tests have a loop that is running
        return thread.submit(asyncio.run, work).result()


def _headers(token: str) -> dict[str, str]:
    return {"Authorization": f"token {token}", "Content-Type": "application/json"}


async def _execute(url: str, token: str, kernel: str, code: str) -> str:
    address = f"ws{url.removeprefix('http')}api/kernels/{kernel}/channels"
    channel = await websocket_connect(HTTPRequest(address, headers=_headers(token)))
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
