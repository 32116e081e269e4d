"""Where weights come from: a local file, a cache, a download with its hash checked; never a surprise."""

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import torch
from torch import Tensor

from odkit.detection.catalogue import CatalogueEntry, catalogue_entry
from odkit.detection.imported import read_torch_file, require_fit
from odkit.detection.tiles import SMALLEST_TILE
from odkit.detection.weights_cache import STARTER_WEIGHTS, is_sound, weights_folder
from odkit.system import InputError, MissingFileError, OdkitError, open_file

FORMAT = 1  # of what a detector's file says of itself
LARGEST_IMAGE = 2**14  # pixels, of the longer side that a file may ask for


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
    """A .safetensors file's tensors, float16 as float32, and what it says of itself where odkit saved it.

    Raises:
        MissingFileError: There is no such file.
        InputError: It is damaged, or what it says of itself is not as odkit writes it.
    """
    from safetensors import SafetensorError, safe_open

    require_file(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            said = (file.metadata() or {}).get("odkit")
            about = None if said is None else check_about(path, said, {"name": str})
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except SafetensorError as error:
        why = str(error).removeprefix("Error while deserializing header: ")
        raise InputError(
            f"{path} is not a detector saved by odkit: it is damaged, or of another kind ({why})"
        ) from None
    return about, {key: v.float() if v.dtype == torch.float16 else v for key, v in state.items()}


def require_file(path: Path) -> None:
    """Raises MissingFileError or InputError where a detector's file is none; the message says what is there."""
    if path.is_dir():
        raise MissingFileError(f"{path} is a folder, not a detector file")
    if not path.exists():
        raise MissingFileError(f"no detector file at {path}")
    open_file(path).close()


def check_about(path: Path, text: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """What a detector's file says of itself, all of it looked at: the file may come from anywhere.

    Args:
        path: The file, for the message.
        text: JSON.
        kinds: What must stand in it besides class_names and image_size, and of which kind.

    Raises:
        InputError: Something in it is not as odkit writes it; the message names that.
    """
    try:
        about: dict[str, Any] = orjson.loads(text)
        wrong = next(_wrong_in(about, kinds), "")
    except orjson.JSONDecodeError as error:
        wrong = f"no JSON ({error})"
    if wrong:
        raise InputError(
            f"what {path} says of itself ('odkit' in its metadata) is not as odkit writes it: {wrong}. Take the file "
            "as it was saved, or save it anew"
        )
    return about


def _wrong_in(about: Any, kinds: Mapping[str, type]) -> Iterator[str]:
    if not isinstance(about, dict):
        yield f"{about!r:.50} in place of keys and values"
        return
    if about.get("format", FORMAT) != FORMAT:
        yield f"format is {about['format']!r:.50}, and this odkit knows {FORMAT}: a newer odkit may open it"
    for key, kind in {"class_names": list, "image_size": int, **kinds}.items():
        if key not in about:
            yield f"{key} is missing"
        elif type(about[key]) is not kind:
            yield f"{key} is {about[key]!r:.50}, and no {kind.__name__}"
    classes, size = about["class_names"], about["image_size"]
    if not classes or not all(isinstance(one, str) and one for one in classes):
        yield f"class_names is {classes!r:.50}, and no list of names"
    if len(set(classes)) < len(classes):
        yield "class_names has a name twice"
    if not 1 <= size <= LARGEST_IMAGE:
        yield f"image_size is {size:,} pixels, and can be {LARGEST_IMAGE:,} at most"
    if about.get("tiles") is not None and not _are_tiles(about["tiles"]):
        yield f"tiles are {about['tiles']!r:.80}, and no size, overlap and whole"
    if about.get("divisible", 1) < 1:
        yield f"divisible is {about['divisible']}"


def _are_tiles(tiles: Any) -> bool:
    return (
        isinstance(tiles, dict)
        and {key: type(value) for key, value in tiles.items()} == {"size": int, "overlap": int, "whole": bool}
        and tiles["size"] >= SMALLEST_TILE // 2  # no setting is so small, but Python may make one
        and 0 <= tiles["overlap"] < tiles["size"]
    )


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
