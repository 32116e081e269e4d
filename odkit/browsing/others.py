"""Other people's ports: JupyterLab passes on what its person started on this machine, and nobody else's.

jupyter-server-proxy shows whatever listens on a port of this machine under BASE_URL/proxy/PORT/, on JupyterLab's own
address: a page from there may run code in every kernel, and its server is handed the browser's login. Whoever has an
account here could listen and send a link. It asks nobody about ports, so this extension of the Jupyter server does.
"""

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

# As jupyter-server-proxy writes its routes. The host is made out after the match, so %6Cocalhost is localhost.
_PROXIED = r"proxy/(?:absolute/)?(?:([^/:@]+):)?(\d+)(?:/.*)?$"
_HERE = {"localhost", "127.0.0.1"}  # no other host is passed on, unless a person allows it
_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENS = "0A"  # a TCP socket's state in them


def listeners(port: int) -> set[int]:
    """User ids of those who listen on a port of this machine; empty where nobody does, or where there is no /proc."""
    rows = [line.split() for path in _TABLES if path.exists() for line in path.read_text().splitlines()[1:]]
    return {int(row[7]) for row in rows if row[3] == _LISTENS and int(row[1].rpartition(":")[2], 16) == port}


def is_others(path: str, base: str = "/") -> bool:
    """Whether a path leads to a port of this machine that is not its person's own (or root's).

    One on which nobody listens is not: somebody could, between this look and what is asked there. Where there is no
    /proc nobody says whose a port is, and all are passed on.
    """
    found = re.match(base + _PROXIED, path)
    if found is None or (found[1] and unquote(found[1]) not in _HERE) or not _TABLES[0].exists():
        return False
    who = listeners(int(found[2]))
    return not who or not who <= {os.getuid(), 0}


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Put a rule before all others: such paths are refused, whoever asks."""
    from tornado import routing, web

    base = app.web_app.settings["base_url"]

    class OthersPort(routing.Matcher):
        def match(self, request: Any) -> dict[str, Any] | None:
            return {} if is_others(request.path, base) else None

    class Refused(web.RequestHandler):
        def prepare(self) -> None:
            self.set_status(403)
            self.finish(
                "No program of yours listens on this port. One of another account of this machine is not passed on: "
                "what it sends could do here all that you can."
            )

    router = app.web_app.default_router
    router.rules.insert(0, router.process_rule(routing.Rule(OthersPort(), Refused)))
