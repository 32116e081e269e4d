"""A folder of pictures in one call, beside picture by picture and beside a plain torchvision-style loop, in one run.

    python bench/predict.py DETECTOR FOLDER [--device cuda] [--pictures 200]

Each way is warmed up with a few pictures first, and its pictures a second and the ratio to one call are printed.
"""

import argparse
import time
from pathlib import Path

import torch
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms.v2 import functional as F

import odkit as od

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("detector", help="run folder or detector file")
parser.add_argument("folder", type=Path)
parser.add_argument("--device", default="auto")
parser.add_argument("--pictures", type=int, default=100)
parser.add_argument("--batch-size", type=int, default=8)
args = parser.parse_args()

detector = od.load_detector(args.detector, device=args.device)
place = next(detector.parameters()).device
files = od.images_dataset(args.folder).image_paths.tolist()[: args.pictures]


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


seconds = {}
for way in (one_call, one_by_one, plain_loop):
    way(files[:8])
    began = time.perf_counter()
    way(files)
    seconds[way.__name__] = time.perf_counter() - began
print(f"{len(files)} pictures on {place}, {detector!r}")
for name, took in seconds.items():
    ratio = took / seconds["one_call"]
    print(f"  {name:<11} {len(files) / took:8.1f} pictures a second   {ratio:5.2f} x the time of one call")
