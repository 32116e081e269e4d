"""A folder of pictures in one call, beside picture by picture and beside a plain torchvision-style loop, in one run.

    python bench/predict.py [DETECTOR [FOLDER]] [--device cuda] [--pictures 100]

Without a DETECTOR (a run folder or detector file) it is the starter as it comes, without a FOLDER drawn photographs of
640x480 pixels. Each way is warmed up with a few pictures first; the ways take turns, and the best of three counts.
"""

import argparse
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rows import row
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as F

import odkit as od

TURNS = 3


def draw_pictures(folder: Path, count: int) -> None:
    """Pictures about as hard to decode as photographs: smooth colours with some grain."""
    rng = np.random.default_rng(0)
    for i in range(count):
        smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((640, 480))
        grain = rng.normal(0, 8, (480, 640, 1))
        rgb = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(rgb).save(folder / f"{i:04}.jpg", quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("detector", nargs="?", help="run folder or detector file")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=8)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="odkit-predict-") as drawn:
        if args.folder is None:
            draw_pictures(Path(drawn), args.pictures)
        compare(args, args.folder or Path(drawn))


def compare(args: argparse.Namespace, folder: Path) -> None:
    detector = (
        od.load_detector(args.detector, device=args.device)
        if args.detector
        else od.build_detector("starter", ["coin"]).eval()
    )
    place = next(detector.parameters()).device
    files = od.images_dataset(folder).image_paths.tolist()[: args.pictures]

    def one_call(some: list[str]) -> None:
        detector.predict(some, device=str(place), batch_size=args.batch_size)

    def one_by_one(some: list[str]) -> None:
        for file in some:
            detector.predict(file, device=str(place))

    def plain_loop(some: list[str]) -> None:
        with torch.inference_mode():
            for file in some:
                image = decode_image(file, mode=ImageReadMode.RGB).to(place)
                scale = detector.image_size / max(image.shape[-2:])
                size = [max(1, round(side * scale)) for side in image.shape[-2:]]
                (found,) = detector([F.resize(image, size, antialias=True).float() / 255])
                {name: value.cpu() for name, value in found.items()}

    seconds: dict[str, list[float]] = {}
    for way in (one_call, one_by_one, plain_loop):
        way(files[:8])
    for _ in range(TURNS):
        for way in (one_call, one_by_one, plain_loop):
            began = time.perf_counter()
            way(files)
            seconds.setdefault(way.__name__, []).append(time.perf_counter() - began)
    rate = {name: len(files) / min(took) for name, took in seconds.items()}
    note = f"{len(files)} pictures on {place}, {detector.name} at {detector.image_size} px"
    words = {"unit": "images/s", "more_is_better": True}
    loop = f"torchvision {version('torchvision')}: decode_image, resize, the same detector, one by one"
    row("a folder in one call", rate["one_call"], rate["plain_loop"], beside=loop, note=note, **words)
    row("picture by picture", rate["one_by_one"], rate["plain_loop"], beside="the same loop", **words)


if __name__ == "__main__":
    main()
