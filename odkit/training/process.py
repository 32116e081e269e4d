"""What a worker process runs: a run folder in, a trained run folder out."""

import gc
import multiprocessing
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from odkit.detection import batches_in_parts
from odkit.runs import EventLog, Run, tell
from odkit.runs.report import report_at_the_end
from odkit.system import OdkitError, cpu_count, open_all_files
from odkit.training.distributed import own_device, process_group, rank, restarts_left, world_size
from odkit.training.errors import (
    ShortOfMemoryError,
    TrainingError,
    explained,
    fault_line,
    is_lost_device,
    is_lost_peer,
)
from odkit.training.trainer import Asked, Trainer

LAST_WORDS = 1 << 16  # bytes kept free for the events that say how a run ended
START_AGAIN = 75  # exit status, sysexits' EX_TEMPFAIL: torchrun starts all processes again


def work(path: str | Path) -> int:
    """Train the run in a folder until it is finished, stopped or failed; returns an exit status (0: as wished).

    Every end but a kill leaves an `end` event with its reason, and a checkpoint where there was progress. A run that
    has a detector is then told of in its report: a kill in the midst of that leaves the run finished or stopped. Under
    torchrun a process whose memory, device or peers are gone leaves no end where torchrun may start it again.
    """
    open_all_files()
    run = Run(path)
    began, began_at = time.monotonic(), time.time()
    log = EventLog(run.path / "events.jsonl", reserve=LAST_WORDS) if rank() == 0 else _SilentLog()
    message = ""
    try:
        _fix_order(run.settings.deterministic)
        device = own_device(run.settings.device)
        with process_group(device), batches_in_parts(_threads(run, device)):
            reason = _train(run, log)
    except OdkitError as error:
        reason, message = "failed", str(error)
        if not isinstance(error, TrainingError):  # which the first process meets as well
            log = _with_a_say(run, log)
    except Exception as error:
        reason, message = "failed", explained(error, str(run.path))
        tell(traceback.format_exc())
        if isinstance(error, ShortOfMemoryError) or is_lost_peer(error) or is_lost_device(error):
            if world_size() > 1 and run.end.get("time", 0.0) > began_at:
                log.close()  # the process that is gone has said why
                return 1
            if restarts_left():
                what = f"{fault_line(error)}; all processes start again from the last checkpoint"
                log.write("warning", kind="restart", message=what, step=run.last_event.get("step", 0))
                log.close()
                return START_AGAIN
        message = message or f"{type(error).__name__}: {error}; worker.log has its traceback"
        if not is_lost_peer(error):
            log = _with_a_say(run, log)
    finally:
        for child in multiprocessing.active_children():  # a hung data worker would outlive this process
            child.kill()
    log.write(
        "end",
        reason=reason,
        message=message,
        step=run.last_event.get("step", 0),
        seconds=time.monotonic() - began,
    )
    if rank() == 0 and reason != "failed" and (run.path / "evaluation.json").exists():
        report_at_the_end(run, log)
    log.close()
    if message:
        tell(message)
    return 1 if reason == "failed" else 0


def _fix_order(deterministic: bool) -> None:
    """Whether sums are taken in a fixed order on a GPU too; an operation that cannot warns, in worker.log."""
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if deterministic:
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False


def _threads(run: Run, device: torch.device) -> int:
    """In how many parts batches are computed at once: one for each core; what is compiled is left whole."""
    if device.type != "cpu" or run.settings.compile:
        return 1
    return min(torch.get_num_threads(), cpu_count())  # of a container's share of the cores


def _train(run: Run, log: EventLog) -> str:
    """Train to the end, "finished" or "stopped"; after a fault the state between two steps is saved."""
    asked = Asked()
    asked.listen()
    while True:
        trainer = Trainer(run, log, asked)
        try:
            return trainer.train()
        except TrainingError:
            raise
        except ShortOfMemoryError:
            trainer.rescue()
            if world_size() > 1:  # the others are in the middle of a step
                raise
        except OSError:  # the disk is full, say: no place for a checkpoint
            raise
        except Exception:
            trainer.rescue()
            raise
        finally:
            trainer.close()
        del trainer
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _with_a_say(run: Run, log: EventLog) -> EventLog:
    """A log in which a process that does not write says how the run ended; the first process' stays its own."""
    return EventLog(run.path / "events.jsonl") if rank() else log


class _SilentLog(EventLog):
    """The log of the processes that do not write."""

    def __init__(self) -> None:
        pass

    def write(self, event: str, **fields: Any) -> None:
        pass

    def close(self) -> None:
        pass
