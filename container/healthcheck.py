"""Is the container well: JupyterLab answers with its token, and every GPU that was there at the start still is.

Exit status 0 or 1, with a sentence for `docker inspect`. A container that runs another command has no JupyterLab to
ask and is well as long as it runs.
"""

import contextlib
import json
import os
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

STATE = Path("/tmp/odkit-container.json")

# As in start.py: no proxy between, and a certificate that names another host than 127.0.0.1 will do.
LOOPBACK = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
)


def become(owner: os.stat_result) -> None:
    """Be who JupyterLab is: the engine asks as root, which may not read others' files where it has few rights."""
    if os.getuid() == 0:
        with contextlib.suppress(PermissionError):
            os.setgid(owner.st_gid)
            os.setuid(owner.st_uid)


def trouble() -> str:
    """What is wrong; "" where nothing is."""
    try:
        become(STATE.stat())
        state = json.loads(STATE.read_text())
    except (OSError, ValueError):
        return "JupyterLab has not answered yet"
    server = jupyter_trouble(Path(state["server"])) if "server" in state else ""
    return server or gpu_trouble(state["gpus"])


def jupyter_trouble(server: Path) -> str:
    """Why JupyterLab is not there; `server` is the file in which it wrote its address and token."""
    try:
        info = json.loads(server.read_text())
    except (OSError, ValueError):
        return "JupyterLab has ended"
    url = f"{'https' if info['secure'] else 'http'}://127.0.0.1:{info['port']}{info['base_url']}api"
    request = urllib.request.Request(
        url
    )  # all that is answered to anybody: a password or a hub leaves no token
    if info["token"]:
        headers = {"Authorization": f"token {info['token']}"}
        request = urllib.request.Request(f"{url}/status", headers=headers)
    try:
        with LOOPBACK.open(request, timeout=10) as answer:
            return "" if answer.status == 200 else f"JupyterLab answers {answer.status}"
    except OSError as error:
        return f"JupyterLab does not answer: {error}"


def gpu_trouble(there: int) -> str:
    """The known way to lose a GPU: systemd reloads on the host and takes the device out of the container's cgroup."""
    if not there:
        return ""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the GPU is gone: {error}"
    now = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    if listed.returncode or now < there:
        said = " ".join((listed.stdout + listed.stderr).split())[:200]
        return f"{there - now} of {there} GPUs gone: {said}; restart the container"
    return ""


if __name__ == "__main__":
    problem = trouble()
    print(problem or "well")
    sys.exit(1 if problem else 0)
