"""A detector as a file that onnxruntime computes: takes batches as a Detector does, without any of torch's layers."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from torch import Tensor

from odkit.detection.batch import Batch
from odkit.detection.tiles import Tiling
from odkit.system import InputError, MissingFileError, cpu_count

KEY = "odkit"  # of what odkit knows of a file, in its metadata


class OnnxDetector:
    """A detector in an ONNX file written by `od.export`; `od.predict` and what stands on it take it like a Detector.

    Attributes:
        path: The file.
        name: Name in the catalogue.
        class_names: Class table; index i of a label is `class_names[i]`.
        image_size: Longer side in pixels that images are resized to before they come here.
        square: True where sides are stretched to a square instead.
        divisible: Sides are padded to a multiple of so many pixels.
        tiling: The tiles that images are cut into before that; None: they are seen whole.
        about: All that the file says of itself.
        device: Where it computes: "cpu" or "cuda".
        providers: What onnxruntime computes with, by its own names.

    Raises:
        MissingFileError: There is no such file.
        InputError: The file was not written by `od.export`, or there is no such device for it.
    """

    def __init__(self, path: str | Path, *, device: str | torch.device = "auto", threads: int = 0) -> None:
        import onnxruntime

        self.path = Path(path)
        if not self.path.is_file():
            raise MissingFileError(f"no detector file at {path}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cpu_count()
        options.log_severity_level = 3  # its warnings are about the order of its own optimizations
        wanted = _providers(str(device), onnxruntime.get_available_providers())
        try:
            self.session = onnxruntime.InferenceSession(str(self.path), options, providers=wanted)
        except Exception as error:  # its errors have no base of their own
            raise InputError(
                f"{path} is no ONNX file that onnxruntime {onnxruntime.__version__} reads: {error}"
            ) from None
        text = self.session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise InputError(
                f"{path} does not say which classes it finds and how pictures are prepared for it (no {KEY!r} in its "
                "metadata): od.export() writes files that do"
            )
        self.about: dict[str, Any] = orjson.loads(text)
        self.name: str = self.about["detector"]
        self.class_names: tuple[str, ...] = tuple(self.about["class_names"])
        self.image_size: int = self.about["image_size"]
        self.square: bool = self.about["square"]
        self.divisible: int = self.about["divisible"]
        self.tiling = Tiling(**self.about["tiles"]) if self.about["tiles"] else None
        self.providers: list[str] = self.session.get_providers()
        self.device = torch.device("cuda" if self.providers[0].startswith("CUDA") else "cpu")
        if str(device).startswith("cuda") and self.device.type != "cuda":
            raise InputError(
                f"{path} cannot be computed on {device}: onnxruntime found no GPU that it can use; pip install "
                "onnxruntime-gpu in its place, or take device='cpu'"
            )

    def __call__(self, batch: Batch) -> list[dict[str, Tensor]]:
        """What is found in each image of a batch: as `Detector.forward` in evaluation."""
        sizes = np.ascontiguousarray(batch.sizes, np.int64)
        images = np.ascontiguousarray(batch.images.cpu().numpy())
        boxes, scores, labels = self.session.run(
            ["boxes", "scores", "labels"], {"images": images, "sizes": sizes}
        )
        counts = (labels >= 0).sum(1)
        return [
            {
                "boxes": torch.from_numpy(boxes[index, :count]),
                "scores": torch.from_numpy(scores[index, :count]),
                "labels": torch.from_numpy(labels[index, :count]),
            }
            for index, count in enumerate(counts.tolist())
        ]

    def __repr__(self) -> str:
        tiles = f" from tiles of {self.tiling.size} px" if self.tiling else ""
        return (
            f"OnnxDetector {self.name!r} ({self.about['precision']}, {self.path.name}): {self.image_size} px{tiles}, "
            f"computed by onnxruntime on {self.device}, classes {', '.join(self.class_names)}"
        )


def _providers(device: str, available: list[str]) -> list[Any]:
    """What onnxruntime is asked to compute with, the most wanted first; the CPU computes what is left."""
    cuda = "CUDAExecutionProvider"
    if device == "cpu" or (device == "auto" and cuda not in available):
        return ["CPUExecutionProvider"]
    if device == "auto" or device.startswith("cuda"):
        if cuda not in available:
            raise InputError(
                f"onnxruntime here computes on {', '.join(available)} alone: pip install onnxruntime-gpu in its "
                "place, or take device='cpu'"
            )
        index = int(device.partition(":")[2] or 0)
        return [(cuda, {"device_id": index}), "CPUExecutionProvider"]
    raise InputError(f'onnxruntime computes on "cpu" or "cuda", not on {device!r}')
