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


def upright(file, fit):
    """A picture as RGB, and its size; as in training, a JPEG of many more pixels than `fit` asks for is made so small.

    Such a one is decoded at 1/2, 1/4 or 1/8, to 1.5 times the size that is asked for at least.
    """
    stored = file.size
    drafted = file.draft("RGB", tuple(math.ceil(side * 1.5) for side in fit(stored)))
    if file.size == stored:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I;16") or (image.mode == "I" and file.format in ("PNG", "PPM")):
            # grey of 16 bits: their upper 8
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image.convert("RGB")
        return image, image.size
    turned = file.getexif().get(0x0112) in (5, 6, 7, 8)
    image = file.convert("RGB").resize(fit(stored), Image.Resampling.BILINEAR, box=drafted[1])
    return ImageOps.exif_transpose(image), stored[::-1] if turned else stored


def predict(path, score=0.3, model=Path(__file__).parent / "detector.onnx"):
    """Class, score and box (left, top, right, bottom in pixels of the upright picture) of each object found."""
    session, about = load(model)
    if about["tiles"]:
        raise SystemExit("this detector looks at tiles of a picture: odkit predict detector.onnx PICTURE")
    size, step = about["image_size"], about["divisible"]

    def fit(sides):
        return [size if about["square"] else max(1, round(side * (size / max(sides)))) for side in sides]

    with Image.open(path) as file:
        image, whole = upright(file, fit)
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
