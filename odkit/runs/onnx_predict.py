"""Find objects in a picture with detector.onnx: needs onnxruntime, NumPy and Pillow, and nothing else.

python predict.py picture.jpg [--score 0.3] [--model detector.int8.onnx]
"""

import argparse
import functools
import json
import math
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


@functools.cache
def load(model):
    """A session of onnxruntime, and what the file says of the detector."""
    here = onnxruntime.get_available_providers()
    wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in here]
    session = onnxruntime.InferenceSession(str(model), providers=wanted)
    return session, json.loads(session.get_modelmeta().custom_metadata_map["odkit"])


def predict(path, score=0.3, model=Path(__file__).parent / "detector.onnx"):
    """Class, score and box (left, top, right, bottom in pixels of the upright picture) of each object found."""
    session, about = load(model)
    if about["tiles"]:
        raise SystemExit("this detector looks at tiles of a picture: odkit predict detector.onnx PICTURE")
    size, step = about["image_size"], about["divisible"]

    def fit(sides):
        return [size if about["square"] else max(1, round(side * (size / max(sides)))) for side in sides]

    with Image.open(path) as file:
        image, whole = file, file.size
        # as in training: a JPEG of many more pixels is decoded at 1/2, 1/4 or 1/8, to 1.5 times the size at least
        drafted = file.draft("RGB", [math.ceil(side * 1.5) for side in fit(whole)])
        part = file.size != whole
        if part:
            image = file.convert("RGB").resize(fit(whole), Image.Resampling.BILINEAR, box=drafted[1])
            whole = whole[::-1] if file.getexif().get(0x0112, 1) >= 5 else whole
        image = ImageOps.exif_transpose(image).convert("RGB")
    whole = whole if part else image.size
    width, height = fit(whole)
    pixels = np.zeros((-(-height // step) * step, -(-width // step) * step, 3), np.uint8)
    pixels[:height, :width] = image.resize((width, height), Image.Resampling.BILINEAR)
    inputs = {"images": pixels.transpose(2, 0, 1)[None], "sizes": np.array([[width, height]])}
    boxes, scores, labels = (output[0] for output in session.run(["boxes", "scores", "labels"], inputs))
    boxes = boxes * (np.array(whole * 2) / np.array([width, height] * 2))
    found = zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
    return [(about["class_names"][k], s, box) for box, s, k in found if k >= 0 and s >= score]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture")
    parser.add_argument(
        "--score", type=float, default=0.3, help="leave out what the detector is less sure of"
    )
    parser.add_argument("--model", default=Path(__file__).parent / "detector.onnx", help="another file")
    given = parser.parse_args()
    for name, sure, box in predict(given.picture, given.score, given.model):
        print(f"{name}\t{sure:.3f}\t{' '.join(f'{value:.1f}' for value in box)}")
