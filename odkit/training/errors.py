"""What an error in the middle of training means, and what to type then."""

import errno
import re

import torch
import torch.distributed as dist

from odkit.detection import last_line
from odkit.runs import FULL
from odkit.system import OdkitError

# How libraries report a device that has gone or whose context is spoilt, where torch has no type of its own for it.
_DEVICE = re.compile(
    r"CUDA error|HIP error|cuDNN error|CUDNN_STATUS_|CUBLAS_STATUS_|CUDA driver|NVML", re.IGNORECASE
)
# A number that no GPU has, or that another process computes on: a setting's fault, not the GPU's.
_WRONG_DEVICE = re.compile(r"invalid device ordinal|Duplicate GPU")
_PEER = re.compile(
    r"Connection (closed|reset) by peer|Broken pipe|Connection refused|Socket Timeout|connectFullMesh failed",
    re.IGNORECASE,
)


class TrainingError(OdkitError, RuntimeError):
    """A run cannot go on, in whatever process: all of them meet the same. The message says why and what to do."""


class OutOfMemoryError(OdkitError, RuntimeError):
    """Not even one image fits into this process' memory; the others may have more."""


class ShortOfMemoryError(Exception):
    """A pass did not fit into memory: the processes start again from the last checkpoint with smaller micro-batches."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return any(
        part in text
        for part in (
            "out of memory",
            "DefaultCPUAllocator: can't allocate memory",
            "STATUS_ALLOC_FAILED",
            # cuDNN, "GET ..." or "FIND ...": no engine whose workspace fits (pytorch/pytorch#108645)
            "unable to find an engine to execute this computation",
        )
    )


def is_wrong_device(error: BaseException) -> bool:
    """Whether an error means that this process was given a GPU that is not there, or that is another process'."""
    return isinstance(error, RuntimeError) and bool(_WRONG_DEVICE.search(str(error)))


def is_lost_device(error: BaseException) -> bool:
    """Whether an error means that the GPU is gone or that this process can use it no more."""
    if is_wrong_device(error):
        return False
    return isinstance(error, torch.AcceleratorError) or bool(
        isinstance(error, RuntimeError) and not is_out_of_memory(error) and _DEVICE.search(str(error))
    )


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error means that another process of the run has ended or cannot be reached."""
    if is_wrong_device(error):
        return False
    return isinstance(error, dist.DistBackendError | dist.DistNetworkError) or (
        isinstance(error, RuntimeError) and dist.is_initialized() and bool(_PEER.search(str(error)))
    )


def compiler_said(error: BaseException) -> str:
    """Why torch.compile failed, without its advice to those who develop it."""
    cause = getattr(error, "inner_exception", error)
    return last_line(RuntimeError(str(cause).split("Set TORCHDYNAMO_VERBOSE", maxsplit=1)[0] or str(error)))


def fault_line(error: BaseException) -> str:
    """The line of an error that says what happened; a device's stands in front of torch's advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if _DEVICE.search(line)), last_line(error))


def explained(error: BaseException, run: str) -> str:
    """What happened to a run whose training ended with this error, and what to type; "" for an error of our own.

    Args:
        error: A pass that met too little memory comes as ShortOfMemoryError.
        run: What `odkit resume` is to be told.
    """
    said = fault_line(error)
    if isinstance(error, ShortOfMemoryError):
        return f"out of memory ({said}). To go on with fewer images at once: odkit resume {run}"
    if is_out_of_memory(error):  # of pictures on their way, a checkpoint, the detector itself
        return f"out of memory ({said}). To go on with fewer data workers: odkit resume {run} --num-workers 0"
    if isinstance(error, OSError):
        if error.errno == errno.EROFS:
            return f"the disk is read-only now ({error}); `dmesg` may say why. Once it is not: odkit resume {run}"
        if error.errno not in FULL:
            return ""
        return f"the disk is full ({error}). Free some space, then: odkit resume {run}"
    if not isinstance(error, RuntimeError):
        return ""
    if is_wrong_device(error):
        return (
            f"this process has no GPU of its own ({said}): `odkit doctor` says which there are. On the first one: "
            f"odkit resume {run} --device cuda:0. Several processes want a GPU each: a new run with fewer --processes"
        )
    if is_lost_device(error):
        # after such an error every call to the device fails in this process; a new process starts clean
        return (
            f"the GPU failed or is gone ({said}). If `nvidia-smi` still lists it: odkit resume {run}. If not, reset it "
            "(a restart of the machine or container), or go on elsewhere with --device cuda:1 or "
            "--device cpu. `odkit doctor` looks at it; `dmesg | grep -i xid` says what the driver saw"
        )
    if is_lost_peer(error):
        return (
            f"another process of this run has ended or cannot be reached ({said}); worker.log says which. Then: "
            f"odkit resume {run}"
        )
    return ""
