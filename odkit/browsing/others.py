"""Other people's ports: JupyterLab passes on what its person started on this machine, and nobody else's.

jupyter-server-proxy shows whatever listens on a port of this machine under BASE_URL/proxy/PORT/, on JupyterLab's own
address: a page from there may run code in every kernel, and its server is handed the browser's login. Whoever has an
account here could listen and send a link. It asks nobody about ports, so this extension of the Jupyter server does.
"""

import os
import re
from pathlib import Path
from typing import Any

_PROXIED = re.compile(r"proxy/(?:absolute/)?(?:(?:localhost|127\.0\.0\.1):)?(\d+)(?:/.*)?$")
_LISTENS = "0A"  # a TCP socket's state in /proc/net/tcp


def listeners(port: int) -> set[int]:
    """User ids of those who listen on a port of this machine; empty where nobody does, or where there is no /proc."""
    tables = [path for path in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if path.exists()]
    rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    return {int(row[7]) for row in rows if row[3] == _LISTENS and int(row[1].rpartition(":")[2], 16) == port}


def is_others(path: str) -> bool:
    """Whether a path below JupyterLab's base URL leads to a port on which somebody else listens (root aside)."""
    found = _PROXIED.match(path)
    return found is not None and not listeners(int(found[1])) <= {os.getuid(), 0}


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(app: Any) -> None:
    """Put a rule before all others: such paths are refused, whoever asks."""
    from tornado import routing, web

    base = app.web_app.settings["base_url"]

    class OthersPort(routing.Matcher):
        def match(self, request: Any) -> dict[str, Any] | None:
            return {} if request.path.startswith(base) and is_others(request.path[len(base) :]) else None

    class Refused(web.RequestHandler):
        def prepare(self) -> None:
            self.set_status(403)
            self.finish(
                "On this port listens another account of this machine, and what it sends could do here all that you "
                "can. Programs of your own are passed on."
            )

    router = app.web_app.default_router
    router.rules.insert(0, router.process_rule(routing.Rule(OthersPort(), Refused)))
