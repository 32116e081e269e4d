"""An exported file in OpenVINO: written in its own format, and computed by it in place of onnxruntime.

`openvino.Core.read_model` converts as `openvino.convert_model` does; that one can report its use over the network.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odkit.system import InputError, MissingPackageError, cpu_count


def require_openvino() -> Any:
    """The package.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingPackageError(
            f'OpenVINO files need the package openvino, which is not here ({error}): pip install "odkit[openvino]"'
        ) from None
    return openvino


def write_openvino(file: Path, target: Path) -> None:
    """Write an ONNX file, and what it says of itself, as OpenVINO's own.

    Args:
        file: The ONNX file.
        target: Where to; it ends in .xml, and the weights are put into a .bin beside it.
    """
    import onnx

    openvino = require_openvino()
    model = openvino.Core().read_model(str(file))
    for known in onnx.load(file, load_external_data=False).metadata_props:
        model.set_rt_info(known.value, known.key)
    openvino.save_model(model, str(target), compress_to_fp16=False)


class OpenVinoSession:
    """A file in OpenVINO, in the place of a session of onnxruntime.

    Args:
        path: An .onnx file, or an .xml with its .bin.
        device: "auto" or "cpu": it computes on the CPU.
        threads: That it computes with; 0: as many as there are cores to use.

    Raises:
        InputError: It is no such file, or for another device.
        MissingPackageError: OpenVINO is not installed.
    """

    def __init__(self, path: Path, device: str = "cpu", threads: int = 0) -> None:
        openvino = require_openvino()
        if device not in ("auto", "cpu"):
            raise InputError(f"odkit has OpenVINO compute on the CPU, not on {device}: take device='cpu'")
        # it computes in bf16 where the processor can, unless told that the file's own format is meant
        how = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads or cpu_count()}
        core = openvino.Core()
        try:
            self._model = core.read_model(str(path))
            self._compiled = core.compile_model(self._model, "CPU", how)
        except RuntimeError as error:
            last = [line.strip() for line in str(error).splitlines() if line.strip()][-1:]
            raise InputError(
                f"{path} is no file that OpenVINO {openvino.__version__.partition('-')[0]} reads: {' '.join(last)}"
            ) from None

    def about(self, key: str) -> str | None:
        """What the file says of itself under a name; None: nothing."""
        return str(self._model.get_rt_info(key).value) if self._model.has_rt_info(key) else None

    def run(self, names: Sequence[str], inputs: dict[str, Any]) -> list[Any]:
        """Outputs by their names."""
        found = self._compiled(inputs)
        return [found[name] for name in names]
