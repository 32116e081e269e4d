"""Where weights come from: a local file, a cache, a download with its hash checked; never a surprise."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import torch
from torch import Tensor

from odkit.detection.catalogue import CatalogueEntry, catalogue_entry
from odkit.detection.imported import read_torch_file, require_fit
from odkit.detection.weights_cache import STARTER_WEIGHTS, is_sound, weights_folder
from odkit.system import InputError, MissingFileError, OdkitError


class WeightsUnavailableError(OdkitError, RuntimeError):
    """Pre-trained weights are neither on disk nor to be had; the message gives the ways out."""


def pretrained_state(
    name: str, entry: CatalogueEntry, weights: str | Path
) -> tuple[dict[str, Tensor], list[str]]:
    """The state dict to start from and the class table of its rows.

    Args:
        name: A name of the catalogue.
        entry: Its entry.
        weights: "pretrained", or the path of a file.

    Raises:
        InputError: The file is missing, damaged, or of another detector.
        WeightsUnavailableError: The published weights are neither on disk nor to be had.
    """
    if str(weights) == "pretrained":
        path = find_weights(name)
    else:
        path = Path(weights)
        if not path.is_file():
            raise InputError(
                f'weights must be "pretrained", "random" or the path of a file; there is no file {path}'
            )
    published_so = entry.file_name.endswith(".safetensors")
    if path.suffix == ".safetensors":
        about, state = read_tensors(path)
        if about is not None:
            if about["name"] != name:
                raise InputError(f"{path} holds a {about['name']} detector, not a {name}")
            background = ["__background__"] if entry.background else []
            return state, [*background, *about["class_names"]]
        if not published_so:
            raise InputError(f"{path} is not a detector saved by odkit")
    elif entry.weights is None or published_so:
        other = f", or as {entry.weights.url} is" if entry.weights else ""
        raise InputError(f"{path}: {name} takes weights from a .safetensors file saved by odkit{other}")
    else:
        state = read_torch_file(path)
    state = entry.family.from_published(state)
    names = list(entry.weights.meta["categories"])
    if path.suffix != ".safetensors" and str(weights) != "pretrained":
        outputs = require_fit(path, name, state)
        if outputs != len(names):  # nothing is known of its classes
            own = [f"\0{number}" for number in range(outputs)]
            names = ["__background__", *own[1:]] if entry.background else own
    return state, names


def read_safetensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a detector file says of itself (name, class_names, image_size), and its tensors, float16 as float32.

    Raises:
        MissingFileError: There is no such file.
        InputError: It is not a detector saved by odkit.
    """
    about, state = read_tensors(path)
    if about is None:
        raise InputError(f"{path} is not a detector saved by odkit")
    return about, state


def read_tensors(path: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """A .safetensors file's tensors, float16 as float32, and what it says of itself where odkit saved it."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise MissingFileError(f"no detector file at {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            said = (file.metadata() or {}).get("odkit")
            about = None if said is None else orjson.loads(said)
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (SafetensorError, orjson.JSONDecodeError) as error:
        raise InputError(f"{path} is not a detector saved by odkit ({error})") from None
    return about, {key: v.float() if v.dtype == torch.float16 else v for key, v in state.items()}


def weights_file(name: str) -> Path:
    """Where the pre-trained weights of a detector lie, or would lie, on this machine."""
    entry = catalogue_entry(name)
    if entry.weights is None:
        return STARTER_WEIGHTS
    return weights_folder() / entry.file_name


def find_weights(name: str, *, timeout: float = 5.0, silence: float = 60.0) -> Path:
    """The pre-trained weights of a detector as a file: from torch's cache, or downloaded into it, hash checked.

    The environment variable ODKIT_WEIGHTS_URL names a mirror to use in place of the published address. A file that no
    hash is known of is not taken unless it is named (`weights=PATH`).

    Args:
        name: A name of the catalogue.
        timeout: Seconds to wait for the first connection before the network counts as absent.
        silence: Seconds that may pass without a byte once connected: some networks take everything and answer nothing.

    Raises:
        WeightsUnavailableError: Not cached and not to be had, or damaged, or nothing to check them by is known.
    """
    entry = catalogue_entry(name)
    path = weights_file(name)
    if entry.weights is None:
        return path
    if not entry.sha256:
        raise WeightsUnavailableError(
            f"odkit knows no hash of {name}'s published weights, and takes no file that it cannot check. Fetch "
            f'{entry.weights.url} yourself, look at it as you would at any download, and name it: weights="PATH"; '
            'or use weights="random", or another detector.'
        )
    if path.is_file():
        if is_sound(path, digits=entry.sha256):
            return path
        raise WeightsUnavailableError(
            f"{path} is damaged: its SHA-256 does not begin with {entry.sha256}. Delete it and try again."
        )
    url = entry.weights.url
    if mirror := os.environ.get("ODKIT_WEIGHTS_URL"):
        url = f"{mirror.rstrip('/')}/{path.name}"
    try:
        _require_host(url, timeout)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _given_up_after(silence):
            torch.hub.download_url_to_file(url, str(path), hash_prefix=entry.sha256, progress=True)
    except (OSError, RuntimeError) as error:
        raise WeightsUnavailableError(
            f"The pre-trained weights of {name} are not on this machine and could not be downloaded ({error}). "
            "Three ways out:\n"
            f"  1. connect to the network (or set HTTPS_PROXY, or ODKIT_WEIGHTS_URL to a mirror) and try again;\n"
            f"  2. fetch {entry.weights.url} elsewhere and put it at {path};\n"
            '  3. use detector="starter", whose weights are bundled, or weights="random" to train from scratch.'
        ) from error
    return path


@contextlib.contextmanager
def _given_up_after(seconds: float) -> Iterator[None]:
    """No new connection is waited on for longer than that; torch's download has no time of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _require_host(url: str, timeout: float) -> None:
    """Fail in seconds, not minutes, where there is no network."""
    parts = urlsplit(url)
    if os.environ.get(f"{parts.scheme}_proxy") or os.environ.get(f"{parts.scheme.upper()}_PROXY"):
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "", port), timeout=timeout).close()
