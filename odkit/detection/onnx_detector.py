"""A detector as a file that onnxruntime or OpenVINO computes; takes batches as a Detector does."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from odkit.detection.batch import Batch
from odkit.detection.openvino_file import OpenVinoSession
from odkit.detection.tiles import Tiling
from odkit.detection.weights import check_about, require_file
from odkit.system import InputError, counted, cpu_count

if TYPE_CHECKING:
    from odkit.data import Predictions

KEY = "odkit"  # of what odkit knows of a file, in its metadata
KINDS = {"detector": str, "square": bool, "divisible": int, "precision": str}  # of what stands there


class OnnxDetector:
    """A detector in a file written by `od.export`; `od.predict` and what stands on it take it like a Detector.

    Attributes:
        path: The file: .onnx, or OpenVINO's .xml with its .bin beside it.
        name: Name in the catalogue.
        class_names: Class table; index i of a label is `class_names[i]`.
        image_size: Longer side in pixels that images are resized to before they come here.
        square: True where sides are stretched to a square instead.
        divisible: Sides are padded to a multiple of so many pixels.
        tiling: The tiles that images are cut into before that; None: they are seen whole.
        about: All that the file says of itself.
        device: Where it computes: "cpu" or "cuda".
        providers: What onnxruntime computes with, by its own names; ["CPU"] in OpenVINO.

    Raises:
        MissingFileError: There is no such file.
        MissingPackageError: The file is OpenVINO's, which is not installed.
        InputError: The file was not written by `od.export`, or there is no such device for it.
    """

    def __init__(self, path: str | Path, *, device: str | torch.device = "auto", threads: int = 0) -> None:
        self.path = Path(path)
        require_file(self.path)
        self.session: Any
        if self.path.suffix == ".xml":
            self.session = OpenVinoSession(self.path, str(device), threads)
            text, self.providers = self.session.about(KEY), ["CPU"]
        else:
            self.session = _onnx_session(self.path, str(device), threads)
            text, self.providers = (
                self.session.get_modelmeta().custom_metadata_map.get(KEY),
                self.session.get_providers(),
            )
        if text is None:
            raise InputError(
                f"{path} does not say which classes it finds and how pictures are prepared for it (no {KEY!r} in its "
                "metadata): od.export() writes files that do"
            )
        self.about = check_about(self.path, text, KINDS)
        self.name: str = self.about["detector"]
        self.class_names: tuple[str, ...] = tuple(self.about["class_names"])
        self.image_size: int = self.about["image_size"]
        self.square: bool = self.about["square"]
        self.divisible: int = self.about["divisible"]
        self.tiling = Tiling(**self.about["tiles"]) if self.about.get("tiles") else None
        self.device = torch.device("cuda" if self.providers[0].startswith("CUDA") else "cpu")
        if str(device).startswith("cuda") and self.device.type != "cuda":
            raise InputError(
                f"{path} cannot be computed on {device}: onnxruntime found no GPU that it can use; pip install "
                "onnxruntime-gpu in its place, or take device='cpu'"
            )

    @property
    def runtime(self) -> str:
        """What computes: "onnxruntime" or "openvino"."""
        return "openvino" if isinstance(self.session, OpenVinoSession) else "onnxruntime"

    def __call__(self, batch: Batch) -> list[dict[str, Tensor]]:
        """What is found in each image of a batch: as `Detector.forward` in evaluation."""
        sizes = np.ascontiguousarray(batch.sizes, np.int64)
        images = np.ascontiguousarray(batch.images.cpu().numpy())
        try:
            boxes, scores, labels = self.session.run(
                ["boxes", "scores", "labels"], {"images": images, "sizes": sizes}
            )
        except Exception as error:  # of either runtime, which have no base in common
            count, _, height, width = images.shape
            raise InputError(
                f"{self.path} cannot be computed on {counted(count, 'picture')} of {width} x {height} pixels: {error}"
            ) from error
        counts = (labels >= 0).sum(1)
        return [
            {
                "boxes": torch.from_numpy(boxes[index, :count]),
                "scores": torch.from_numpy(scores[index, :count]),
                "labels": torch.from_numpy(labels[index, :count]),
            }
            for index, count in enumerate(counts.tolist())
        ]

    def predict(self, source: Any, **how: Any) -> "Predictions":
        """What this detector finds in pictures, videos, a dataset: `odkit.predict(detector, source)`, see there.

        Args:
            source: A path, folder, pattern, array, tensor, PIL image, video, camera, Dataset, or a list.
            **how: `score`, `tiles`, `batch_size`, `num_workers`, `stop`.
        """
        from odkit.detection.inference import predict

        return predict(self, source, **how)

    def __repr__(self) -> str:
        tiles = f" from tiles of {self.tiling.size} px" if self.tiling else ""
        return (
            f"OnnxDetector {self.name!r} ({self.about['precision']}, {self.path.name}): {self.image_size} px{tiles}, "
            f"computed by {self.runtime} on {self.device}, classes {', '.join(self.class_names)}"
        )


def _onnx_session(path: Path, device: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cpu_count()
    options.log_severity_level = 3  # its warnings are about the order of its own optimizations
    wanted = _providers(device, onnxruntime.get_available_providers())
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # its errors have no base of their own
        raise InputError(
            f"{path} is no ONNX file that onnxruntime {onnxruntime.__version__} reads: {error}"
        ) from None


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
