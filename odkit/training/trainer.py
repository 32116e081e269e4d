"""The training loop: a run folder in, a trained run folder out.

`work()` is what a worker process runs; under `torchrun` each process runs it with its share of every batch. A step is
the mean over equal shares (micro-batches, processes) of the detector's own loss, so one process that accumulates and
several that share a batch compute the same gradient. Batch norms see their own share alone, as is usual for
fine-tuning; the first process' running figures are the ones judged with and saved.

Processes meet between the passes of a step only, never inside one (so there is no DistributedDataParallel here, whose
messages travel in the middle of both passes): when memory runs out in one of them, all can halve their micro-batches
and take the step again, where the others would wait for ever.
"""

import contextlib
import math
import multiprocessing
import os
import platform
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from odkit.analysis import evaluate
from odkit.detection import (
    DataWorkerError,
    Detector,
    ImageReadError,
    autocast,
    build_detector,
    catalogue_entry,
    freeze_stem,
    gather,
    last_line,
    next_batch,
    predict_rows,
    save_detector,
    shaped_like,
    start_epoch,
    to_device,
)
from odkit.runs import STOP_SIGNALS, EventLog, Run, tell
from odkit.system import write_file
from odkit.training.batches import EpochSampler, TrainingImages, training_loader
from odkit.training.checkpoints import newest_checkpoint, random_state, set_random_state, write_checkpoint
from odkit.training.distributed import (
    all_reduce_max,
    broadcast_tensors,
    broadcast_value,
    pick_device,
    process_group,
    rank,
    world_size,
)
from odkit.training.errors import compiler_said, explained, fault_line, is_out_of_memory
from odkit.training.recipe import (
    DTYPES,
    Choices,
    choose,
    choose_workers,
    make_optimizer,
    schedule,
    warm_average,
)

PREVIEW_IMAGES = 4
LAST_WORDS = 1 << 16  # bytes kept free for the events that say how a run ended
BAD_BATCHES_IN_A_ROW = 3  # then back to the last good checkpoint with half the learning rate
ROLLBACKS = 3  # then the run ends
WISHES = (
    "",
    "checkpoint",
    "epoch",
    "now",
)  # what a worker may be asked for; a later one wins over an earlier one


class TrainingError(RuntimeError):
    """A run cannot go on; the message says why and what to do."""


@dataclass
class Progress:
    """Where the run stands: everything that is no tensor and that a checkpoint holds."""

    epoch: int = 0  # epochs finished
    batch: int = 0  # batches of the current epoch that are done
    step: int = 0  # optimizer steps taken
    total_epochs: int = 0
    best_ap: float = -1.0
    best_epoch: int = 0
    best_figures: dict[str, Any] = field(default_factory=dict)  # epoch, ap, ap50
    skipped: int = 0  # batches left out for a loss that was not finite
    bad_in_a_row: int = 0
    rollbacks: int = 0
    rate_factor: float = 1.0
    seconds: float = 0.0  # training time over all workers
    fitted: bool = False  # whether a time budget has set total_epochs
    loss_sum: float = 0.0  # of the current epoch
    loss_count: int = 0
    epoch_seconds: float = 0.0


# -- the worker --------------------------------------------------------------------------------------------------------


def work(path: str | Path) -> int:
    """Train the run in a folder until it is finished, stopped or failed; returns an exit status (0: as wished).

    Every end but a kill leaves an `end` event with its reason, and a checkpoint where there was progress.
    """
    run = Run(path)
    began = time.monotonic()
    log = EventLog(run.path / "events.jsonl", reserve=LAST_WORDS) if rank() == 0 else _Silent()
    trainer = None
    try:
        with process_group(run.settings):
            trainer = Trainer(run, log)
            reason = trainer.train()
            message = ""
    except (TrainingError, ImageReadError, DataWorkerError, ValueError) as error:
        reason, message = "failed", str(error)
    except Exception as error:
        message = explained(error, str(run.path))
        if not message:
            log.write("end", reason="failed", message=f"{type(error).__name__}: {error}", step=_step(trainer))
            raise  # the traceback goes to worker.log
        reason = "failed"
        tell(traceback.format_exc())
        if trainer is not None and not isinstance(error, OSError):
            trainer.rescue()
    finally:
        for child in multiprocessing.active_children():  # a hung data worker would outlive this process
            child.kill()
    log.write("end", reason=reason, message=message, step=_step(trainer), seconds=time.monotonic() - began)
    log.close()
    if message:
        tell(message)
    return 1 if reason == "failed" else 0


class _Silent(EventLog):
    """The log of the processes that do not write."""

    def __init__(self) -> None:
        pass

    def write(self, event: str, **fields: Any) -> None:
        pass

    def close(self) -> None:
        pass


def _step(trainer: "Trainer | None") -> int:
    return trainer.at.step if trainer else 0


class Trainer:
    """The parts of one worker and the loop over them."""

    def __init__(self, run: Run, log: EventLog) -> None:
        self.run, self.log, self.settings = run, log, run.settings
        self.device = pick_device(self.settings)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # whose memory is counted
        dataset = run.dataset()
        self.train_set = dataset.split(self.settings.train_split)
        self.val_set = dataset.split(self.settings.val_split)
        saved = newest_checkpoint(run, log)
        torch.manual_seed(self.settings.seed)
        self.choices = (
            Choices(**saved["choices"]) if saved else choose(self.settings, self.device, len(self.train_set))
        )
        self.at = Progress(**saved["progress"]) if saved else Progress(total_epochs=self.settings.epochs)
        if saved and not self.at.fitted:
            self.at.total_epochs = self.settings.epochs
        detector = self._build(saved)
        self.detector = detector.to(self.device).to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.detector, self.choices, self.settings.layer_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.choices.precision == "fp16")
        self.average = AveragedModel(
            self.detector, multi_avg_fn=warm_average(self.settings.ema), use_buffers=True
        )
        self.num_workers, worker_reason = choose_workers(self.settings, self.choices)
        self.choices.reasons["num_workers"] = worker_reason
        self.sampler = EpochSampler(
            len(self.train_set),
            self.choices.batch_size,
            seed=self.settings.seed,
            world=world_size(),
            rank=rank(),
        )
        self.forward: Callable[..., Any] = self.detector
        self.running = [  # the figures that a pass in training mode changes
            buffer
            for module in self.detector.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
            for buffer in module.buffers(recurse=False)
        ]
        self.before: tuple[dict[str, Any], list[Tensor]] | None = None  # the step's beginning
        self.updating = False  # between the first changed weight and the step's being counted
        if self.settings.compile:
            self._compile()
        self.judging_batch = self.choices.micro_batch_size
        self.asked = ""  # what a signal asked of this process, at any moment
        # what all agreed on at the same step: a process that left alone would fail the others
        self.request = ""
        self.last_step_saved = -1
        self.last_saved = time.monotonic()
        self.clock = time.monotonic()
        if saved:
            self.restore(saved)
        if dist.is_initialized():
            broadcast_tensors(self.detector.state_dict().values())
        self._listen()
        self._say_start(saved)

    def _build(self, saved: dict[str, Any] | None) -> Detector:
        name, names, size = self.settings.detector, self.run.class_names, self.choices.image_size
        if saved is None:
            return build_detector(name, names, weights=self.settings.weights, image_size=size)
        # a resumed run brings its weights along, and must not need the network again
        detector = shaped_like(name, names, saved["detector"], image_size=size)
        if self.settings.weights != "random":
            freeze_stem(detector)
        return detector

    # -- the loop ------------------------------------------------------------------------------------------------

    def train(self) -> str:
        """Epochs until the end or a stop; returns "finished" or "stopped"."""
        self._predict_disk()
        if self.at.step == 0:
            self.save()  # so that a run can always be resumed, and goes back here if its first steps go wrong
        self.loader = self._loader()
        while self.at.epoch < self.at.total_epochs:
            try:
                whole = self.train_epoch()
            except _Rollback:
                self.loader = self._loader()
                continue
            whole = whole and self.finish_epoch()
            if self.request in ("now", "epoch") or not whole:
                self.save()
                self.log.write("stop", reason=self.request, step=self.at.step)
                (self.run.path / "stop").unlink(missing_ok=True)
                return "stopped" if self.at.epoch < self.at.total_epochs else "finished"
            if self._patience_is_over():
                break
        return "finished"

    def train_epoch(self) -> bool:
        """The rest of the current epoch; False where a request ended it early."""
        self.detector.train()
        self._freeze_backbone(self.at.epoch < self.settings.freeze_epochs)
        for images, targets, waited in self._batches():
            began = time.monotonic()
            losses, norm = self.step(images, targets)
            self._count(losses, norm, len(images), waited, time.monotonic() - began)
            self.before, self.updating = None, False
            self._fit_to_budget()
            save = self._take_requests()
            if self.request == "now":
                return False
            if save:
                self.save()
        return True

    def step(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> tuple[dict[str, float], float]:
        """One optimizer step over a batch; halves the micro-batches when memory runs out. Loss terms, gradient norm."""
        self._remember()
        while True:
            shortage: BaseException | None = None
            try:
                losses = self._accumulate(images, targets)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                shortage = error
            if not all_reduce_max([shortage is not None])[0]:
                break
            self._smaller_micro_batch(shortage)
            self._take_back()
        sound = all(map(math.isfinite, losses.values()))
        losses = self._share(losses)
        if not all(map(math.isfinite, losses.values())):
            self._skip(images, targets, losses, sound)
            return losses, math.nan
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self.rate()
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self._trained(), self.settings.clip or math.inf))
        if self.choices.precision != "fp16" and not math.isfinite(norm):
            self._skip(images, targets, losses, sound=False)
            return losses, math.nan
        self.updating = True
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update_parameters(self.detector)
        self.at.bad_in_a_row = 0
        return losses, norm

    def _accumulate(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, float]:
        """Gradients of this process' share of the batch, a micro-batch after the other; the share's loss terms."""
        self.optimizer.zero_grad(set_to_none=True)
        totals: dict[str, Tensor] = {}
        precision = DTYPES[self.choices.precision]
        size = self.choices.micro_batch_size
        for first in range(0, len(images), size):
            part = slice(first, first + size)
            share = len(images[part]) / len(images)
            moved, moved_targets = to_device(images[part], targets[part], self.device)
            with autocast(self.device, precision):
                losses: dict[str, Tensor] = self.forward(moved, moved_targets)
                loss = torch.stack([v.float() for v in losses.values()]).sum()
            self.scaler.scale(loss * share).backward()
            for name, value in losses.items():
                value = value.detach().double() * share
                totals[name] = totals[name] + value if name in totals else value
        return dict(zip(totals, torch.stack(list(totals.values())).tolist(), strict=True))

    def _share(self, losses: dict[str, float]) -> dict[str, float]:
        """Means over all processes of gradients and loss terms, in one message."""
        if not dist.is_initialized():
            return losses
        trained = self._trained()
        there = [parameter.grad is not None for parameter in trained]
        figures = torch.tensor([*losses.values(), *there], dtype=torch.float32, device=self.device)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        message = torch.cat([part.reshape(-1) for part in parts] + [figures])
        dist.all_reduce(message)
        message /= world_size()
        *means, known = message.split([*(part.numel() for part in parts), len(figures)])
        values = known.tolist()
        for parameter, mean, some in zip(trained, means, values[len(losses) :], strict=True):
            if not some:
                continue
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(mean.view_as(parameter))  # in the gradient's own memory format
        return dict(zip(losses, values, strict=False))

    def _remember(self) -> None:
        """Keep what passes change besides gradients, for `_take_back`."""
        self.before = random_state(), [figure.clone() for figure in self.running]

    def _take_back(self) -> None:
        """Undo what the passes of the step under way have changed besides gradients: random state, running figures."""
        assert self.before is not None
        state, figures = self.before
        set_random_state(state)  # the step starts again with the same random numbers
        with torch.no_grad():
            for figure, old in zip(self.running, figures, strict=True):
                figure.copy_(old)

    def finish_epoch(self) -> bool:
        """Judge the epoch, count it, save; False where a request to stop came in between: a resume then judges it."""
        epoch = self.at.epoch + 1
        mean = self.at.loss_sum / max(1, self.at.loss_count)
        images = self.at.loss_count * self.choices.batch_size
        self.log.write(
            "epoch",
            epoch=epoch,
            epochs=self.at.total_epochs,
            step=self.at.step,
            loss=mean,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            seconds=self.at.epoch_seconds,
            images_per_second=images / max(1e-9, self.at.epoch_seconds),
            total_seconds=self.at.seconds,
        )
        last = epoch >= self.at.total_epochs
        due = last or epoch % self.settings.evaluate_every == 0 or self.request == "epoch"
        if due and not self.judge(epoch):
            return False
        self.at.epoch, self.at.batch = epoch, 0
        self.at.loss_sum, self.at.loss_count, self.at.epoch_seconds = 0.0, 0, 0.0
        self.save()
        return True

    # -- judging -------------------------------------------------------------------------------------------------

    def judge(self, epoch: int) -> bool:
        """Evaluate the averaged weights on the validation split; keep them where they are the best so far.

        Returns:
            False where a request to stop came before the last image.
        """
        began = time.monotonic()
        detector = self.average.module
        assert isinstance(detector, Detector)
        if dist.is_initialized():  # each process has running figures of its own: judged is what is saved
            broadcast_tensors(self.average.buffers())
        found: dict[int, Any] | None = self._found(detector)
        if dist.is_initialized():
            parts: list[Any] = [None] * world_size()
            dist.all_gather_object(parts, found)
            found = None if None in parts else {row: value for part in parts for row, value in part.items()}
        if found is None:
            self.request = "now"
            return False
        if rank() == 0:
            predictions = gather(found, self.val_set, self.run.class_names)
            evaluation = evaluate(self.val_set, predictions)
            ap = evaluation.ap if math.isfinite(evaluation.ap) else 0.0
            best = ap > self.at.best_ap
            if best:
                self.at.best_ap, self.at.best_epoch = ap, epoch
                self.at.best_figures = {
                    "epoch": epoch,
                    "ap": _plain(evaluation.ap),
                    "ap50": _plain(evaluation.ap50),
                }
                save_detector(detector, self.run.path / "detector.safetensors")
                predictions.save(self.run.path / "predictions.npz")
                figures = {"epoch": epoch, "step": self.at.step, **evaluation.to_dict()}
                write_file(
                    self.run.path / "evaluation.json", orjson.dumps(figures, option=orjson.OPT_INDENT_2)
                )
            self.log.write(
                "evaluation",
                epoch=epoch,
                step=self.at.step,
                **{key: _plain(value) for key, value in evaluation.metrics.items()},
                per_class={row["class"]: _plain(row["ap"]) for row in evaluation.per_class},
                best=best,
                best_so_far=self.at.best_figures,
                seconds=time.monotonic() - began,
            )
            self._write_preview(epoch, predictions)
        if dist.is_initialized():  # early stopping must be one decision
            shared = [self.at.best_ap, self.at.best_epoch]
            dist.broadcast_object_list(shared, src=0)
            self.at.best_ap, self.at.best_epoch = float(shared[0]), int(shared[1])
        return True

    def _found(self, detector: Detector) -> dict[int, Any] | None:
        """What is found in this process' share of the validation split; None where a request to stop came."""
        rows = list(range(rank(), len(self.val_set), world_size()))
        tried_again = False
        while True:
            try:
                found = predict_rows(
                    detector,
                    self.val_set,
                    rows,
                    batch_size=min(self.judging_batch, self.choices.micro_batch_size),
                    num_workers=self.num_workers,
                    precision=DTYPES[self.choices.precision],
                    worker_timeout=self.settings.worker_timeout,
                    stop=self._stop_is_asked_for,
                )
                return found if len(found) == len(rows) else None
            except DataWorkerError as error:
                if tried_again:
                    raise
                tried_again = True
                self._warn("data_worker", f"{error}; started anew")
            except (MemoryError, RuntimeError) as error:
                batch = min(self.judging_batch, self.choices.micro_batch_size)
                if not is_out_of_memory(error) or batch <= 1:
                    raise
                self.judging_batch = batch // 2
                self._warn(
                    "out_of_memory",
                    f"out of memory while judging: {self.judging_batch} images at once from now on",
                )

    def _stop_is_asked_for(self) -> bool:
        """Between two batches of judging: whether to stop at once; a checkpoint asked for is saved on the way."""
        wish = self._filed_request()
        if wish == "checkpoint" and rank() == 0:
            self.save()
        return "now" in (self.asked, wish)

    def _write_preview(self, epoch: int, predictions: Any) -> None:
        shown = np.unique(np.linspace(0, len(self.val_set) - 1, PREVIEW_IMAGES).round().astype(int))
        images = []
        for row in shown:
            part = predictions.of(int(row))
            keep = np.flatnonzero(predictions.scores[part] >= 0.3)[:30] + part.start
            images.append(
                {
                    "row": int(row),
                    "boxes": predictions.boxes[keep].round(1).tolist(),
                    "classes": predictions.classes[keep].tolist(),
                    "scores": predictions.scores[keep].round(3).tolist(),
                }
            )
        self.log.write("preview", epoch=epoch, step=self.at.step, images=images)

    def _patience_is_over(self) -> bool:
        waited = self.at.epoch - self.at.best_epoch
        if not self.settings.patience or self.at.best_ap < 0 or waited < self.settings.patience:
            return False
        self._warn(
            "early_stop", f"the AP has not risen for {waited} epochs; the best was epoch {self.at.best_epoch}"
        )
        return True

    # -- schedule ------------------------------------------------------------------------------------------------

    def rate(self) -> float:
        """The learning rate of the next step as a share of its peak, 0 to 1."""
        total = self.at.total_epochs * len(self.sampler)
        return schedule(self.at.step, total, self.settings.warmup) * self.at.rate_factor

    def _fit_to_budget(self) -> None:
        budget = self.settings.minutes * 60
        if not budget:
            return
        probe = min(20, max(5, len(self.sampler) // 2))
        if not self.at.fitted and self.at.step >= probe:
            step_seconds = self.at.seconds / self.at.step
            judging = (
                len(self.val_set) * step_seconds / self.choices.batch_size / 2 / self.settings.evaluate_every
            )
            an_epoch = len(self.sampler) * step_seconds + judging
            epochs = max(1, int(budget / an_epoch))
            self.at.total_epochs, self.at.fitted = broadcast_value(epochs), True
            self.log.write(
                "warning",
                kind="time_budget",
                step=self.at.step,
                message=f"{self.settings.minutes:g} minutes make {epochs} epochs at {an_epoch:.0f} s each",
            )

    def _freeze_backbone(self, frozen: bool) -> None:
        backbone = getattr(self.detector.module, "backbone", None)
        if backbone is None or not self.settings.freeze_epochs:
            return
        # fixed means its batch norms' running figures too; thawed, they are trained like all others
        backbone.train(not frozen)
        stem = catalogue_entry(self.settings.detector).frozen if self.settings.weights != "random" else ()
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(not frozen and not f"backbone.{name}".startswith(stem or ("\0",)))

    def _trained(self) -> list[nn.Parameter]:
        return [p for p in self.detector.parameters() if p.requires_grad]

    # -- data ----------------------------------------------------------------------------------------------------

    def _loader(self) -> Any:
        images = TrainingImages(
            self.train_set,
            image_size=self.choices.image_size,
            square=self.detector.square,
            augment=self.choices.augment,
            seed=self.settings.seed,
            multi_scale=self.settings.multi_scale,
        )
        return training_loader(
            images,
            self.sampler,
            num_workers=self.num_workers,
            pin=self.device.type == "cuda",
            timeout=min(5.0, self.settings.worker_timeout or 5.0),
        )

    def _batches(self) -> Iterator[tuple[list[Tensor], list[dict[str, Tensor]], float]]:
        """Batches from where the epoch stands, with the seconds each was waited for; a lost worker is replaced once."""
        tries = 0
        while True:
            self.sampler.epoch, self.sampler.start = self.at.epoch, self.at.batch
            began = time.monotonic()
            try:
                batches = start_epoch(self.loader)
                # torch's own handler raises a dead worker's error anywhere, in the middle of a step too; without it
                # the loader finds out when it is next asked for a batch
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                while (batch := next_batch(batches, self.settings.worker_timeout)) is not None:
                    yield *batch, time.monotonic() - began
                    tries = 0
                    began = time.monotonic()
                return
            except ImageReadError as error:
                raise ImageReadError(last_line(error)) from None
            except DataWorkerError as error:
                files = [self.train_set.image_paths[row] for row in self.sampler.rows()[self.at.batch]]
                if tries:
                    raise TrainingError(
                        f"data workers died or hung twice in a row ({error}). They were reading one of: "
                        f"{', '.join(files)}. Try --num-workers 0, or look at these files."
                    ) from error
                tries += 1
                self._warn("data_worker", f"a data worker died or hung ({error}); started anew")
                self.loader = self._loader()

    # -- when things go wrong ------------------------------------------------------------------------------------

    def _smaller_micro_batch(self, error: BaseException | None) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.choices.micro_batch_size <= 1:
            said = last_line(error) if error else "in another process"
            raise TrainingError(
                f"out of memory with a single {self.choices.image_size}-pixel image ({said}); "
                "try a smaller --image-size or a smaller detector"
            ) from error
        self.choices.micro_batch_size = max(1, self.choices.micro_batch_size // 2)
        self._warn(
            "out_of_memory",
            f"out of memory: {self.choices.micro_batch_size} images at once from now on, accumulated to the same batch "
            f"of {self.choices.batch_size}",
        )

    def _skip(
        self,
        images: list[Tensor],
        targets: list[dict[str, Tensor]],
        losses: dict[str, float],
        sound: bool,
    ) -> None:
        """Leave a batch out whose loss or gradient is not finite, keep it for a replay, and count.

        `sound`: this process' share of the batch gave finite losses, so there is nothing in it to replay.
        """
        assert self.before is not None
        state = self.before[0]
        self.optimizer.zero_grad(set_to_none=True)
        self._take_back()  # batch norms have taken the batch into their running figures
        self.before = None
        self.at.skipped += 1
        self.at.bad_in_a_row += 1
        folder = self.run.path / "bad_batches"
        part = f"-{rank()}" if world_size() > 1 else ""
        kept = folder / f"step-{self.at.step:08d}-{self.at.skipped}{part}.pt"
        if not sound and len(list(folder.glob("*.pt"))) < 20:
            folder.mkdir(exist_ok=True)
            batch = {
                "images": images,
                "targets": targets,
                "random": state,
                "detector": self.detector.state_dict(),
            }
            torch.save(batch, kept)
        names = [] if sound else [str(self.train_set.image_ids[int(target["row"])]) for target in targets]
        if dist.is_initialized():
            every: list[Any] = [None] * world_size()
            dist.all_gather_object(every, names)
            names = [name for some in every for name in some]
        self._warn(
            "not_finite",
            f"loss or gradient is not finite ({', '.join(f'{k} {v:.3g}' for k, v in losses.items())}); the batch was "
            f"left out: {', '.join(names)}. `odkit replay` shows where it comes from.",
        )
        if self.at.bad_in_a_row >= BAD_BATCHES_IN_A_ROW:
            self._roll_back()

    def _roll_back(self) -> None:
        if self.at.rollbacks >= ROLLBACKS:
            raise TrainingError(
                f"the loss stayed not finite after {ROLLBACKS} returns to a good checkpoint, each with half the "
                f"learning rate. Try a new run with --learning-rate {self.choices.learning_rate / 10:g}, or "
                f"`odkit replay {self.run.path}` to see where it comes from."
            )
        saved = newest_checkpoint(self.run, self.log)
        if saved is None:
            raise TrainingError("the loss is not finite and there is no checkpoint to go back to")
        rollbacks, skipped, factor = self.at.rollbacks + 1, self.at.skipped, self.at.rate_factor / 2
        self.at = Progress(**saved["progress"])
        self.restore(saved)
        self.at.rollbacks, self.at.skipped, self.at.rate_factor, self.at.bad_in_a_row = (
            rollbacks,
            skipped,
            factor,
            0,
        )
        self._warn("rollback", f"back to step {self.at.step} with {factor:g} of the learning rate")
        # what follows replaces the steps that went wrong, like a resume
        self.log.write(
            "start", from_step=self.at.step, from_epoch=self.at.epoch, step=self.at.step, rollback=rollbacks
        )
        raise _Rollback

    def _warn(self, kind: str, message: str) -> None:
        self.log.write("warning", kind=kind, message=message, step=self.at.step, epoch=self.at.epoch + 1)

    # -- requests ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        def stop(number: int, frame: Any) -> None:
            self.asked = "now"

        for number in STOP_SIGNALS:
            signal.signal(number, stop)

    def _take_requests(self) -> bool:
        """Take up what was asked for, the same in all processes at the same step; whether to save now."""
        filed = self._filed_request() if rank() == 0 else ""
        wish = max(self.asked, self.request, filed, key=WISHES.index)
        which, save = all_reduce_max([WISHES.index(wish), self._save_is_due()])
        if WISHES[which] in ("epoch", "now"):
            self.request = WISHES[which]
        return bool(save) or WISHES[which] == "checkpoint"

    def _filed_request(self) -> str:
        """What the run folder's stop file asks for; a wish for a checkpoint is taken away: the run goes on after it."""
        file = self.run.path / "stop"
        try:
            wish = file.read_text().strip()
            if wish == "checkpoint" and rank() == 0:
                taken = file.with_name("stop.taken")
                file.replace(taken)
                wish = taken.read_text().strip()  # a wish to stop may have taken its place meanwhile
                taken.unlink()
        except FileNotFoundError:
            return ""
        return wish if wish in WISHES else ""

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _save_is_due(self) -> bool:
        every = self.settings.checkpoint_steps
        due = bool(every) and self.at.step % every == 0
        minutes = (time.monotonic() - self.last_saved) / 60
        return due or minutes >= self.settings.checkpoint_minutes > 0

    def save(self) -> None:
        """A checkpoint, whole or not at all; then the oldest ones beyond `keep` go."""
        self.last_saved = time.monotonic()
        if rank() != 0:
            return
        began = time.monotonic()
        path = self.run.path / "checkpoints" / f"step-{self.at.step:08d}.pt"
        size = write_checkpoint(path, self.state())
        for old in self.run.checkpoints()[: -self.settings.keep]:
            old.unlink(missing_ok=True)
        self.last_step_saved = self.at.step
        self.log.write(
            "checkpoint", step=self.at.step, file=path.name, bytes=size, seconds=time.monotonic() - began
        )

    def rescue(self) -> None:
        """A last checkpoint after a fault, where the state is that between two steps and can still be read."""
        if rank() != 0 or self.last_step_saved == self.at.step:
            return
        try:
            if self.updating:
                raise TrainingError("the fault came in the middle of the weights' update")
            if self.before is not None:
                self._take_back()
            self.save()
        except (
            Exception
        ) as error:  # on a device that is gone everything fails; the last good checkpoint is there
            message = (
                f"no checkpoint could be written after the fault ({fault_line(error)}); the last one stands"
            )
            self._warn("no_checkpoint", message)

    def state(self) -> dict[str, Any]:
        """Everything a resume needs, as plain tensors and numbers."""
        return {
            "format": 1,
            "detector": self.detector.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "choices": dict(vars(self.choices)),
            "progress": dict(vars(self.at)),
            "random": random_state(),
            "settings": self.settings.to_dict(),
            "class_names": list(self.run.class_names),
            "fingerprint": self.run.config["fingerprint"],
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Set weights, average, optimizer and random state from a checkpoint."""
        if saved["fingerprint"] != self.run.config["fingerprint"]:
            raise TrainingError("the checkpoint was trained on other data than this run's dataset.npz")
        self.detector.module.load_state_dict(saved["detector"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        set_random_state(saved["random"])

    def _predict_disk(self) -> None:
        weights = sum(t.numel() * t.element_size() for t in self.detector.state_dict().values())
        need = (
            5 * weights * (self.settings.keep + 1)
        )  # weights, average, two moments, the new one beside the kept
        free = psutil.disk_usage(str(self.run.path)).free
        if free < need:
            raise TrainingError(
                f"checkpoints need about {need / 1e6:.0f} MB and {self.run.path} has {free / 1e6:.0f} MB free; "
                "free some space, choose another --folder, or --keep 1"
            )

    # -- saying --------------------------------------------------------------------------------------------------

    def _count(
        self, losses: dict[str, float], norm: float, images: int, waited: float, computed: float
    ) -> None:
        total = sum(losses.values())
        seconds = waited + computed
        self.at.step += 1
        self.at.batch += 1
        self.at.seconds += seconds
        self.at.epoch_seconds += seconds
        if math.isfinite(total) and math.isfinite(norm):
            self.at.loss_sum += total
            self.at.loss_count += 1
        self.log.write(
            "step",
            step=self.at.step,
            epoch=self.at.epoch + 1,
            loss=_plain(total),
            losses={name: _plain(value) for name, value in losses.items()},
            learning_rate=self.optimizer.param_groups[0]["lr"],
            grad_norm=_plain(norm),
            images_per_second=images * world_size() / max(seconds, 1e-9),
            data_wait=waited / max(seconds, 1e-9),
            memory=psutil.Process().memory_info().rss,
            device_memory=torch.cuda.max_memory_allocated() if self.device.type == "cuda" else 0,
        )

    def _say_start(self, saved: dict[str, Any] | None) -> None:
        self.log.write(
            "start",
            step=self.at.step,
            from_step=self.at.step,
            from_epoch=self.at.epoch,
            steps_per_epoch=len(self.sampler),
            epochs=self.at.total_epochs,
            resumed=saved is not None,
            device=str(self.device),
            processes=world_size(),
            choices=dict(vars(self.choices)),
            dataset=self.run.config["dataset"],
            fingerprint=self.run.config["fingerprint"],
            images={"train": len(self.train_set), "val": len(self.val_set)},
            settings=self.settings.to_dict(),
            machine=machine(self.device),
        )

    # -- several processes, compiling ----------------------------------------------------------------------------

    def _compile(self) -> None:
        from torch._inductor.cpp_builder import get_cpp_compiler

        backbone: Any = self.detector.module.backbone
        size = self.choices.image_size
        images = torch.zeros(2, 3, size, size, device=self.device).contiguous(
            memory_format=torch.channels_last
        )
        self._remember()
        try:
            if self.device.type == "cpu":
                get_cpp_compiler()  # says at once what would come out after a minute of work
            backbone.compile(dynamic=True)
            with autocast(self.device, DTYPES[self.choices.precision]):
                found = backbone(images)
            maps = found.values() if isinstance(found, Mapping) else [found]
            torch.stack([one.float().sum() for one in maps]).sum().backward()
            # an image shape that it cannot compile for at hour three must not end the run
            torch._dynamo.config.suppress_errors = True
        except Exception as error:  # whatever the compiler raises: it is an option, training is not
            backbone._compiled_call_impl = None
            self._warn(
                "compile",
                f"torch.compile did not work here, training goes on without: {compiler_said(error)}",
            )
        finally:
            self._take_back()
            self.optimizer.zero_grad(set_to_none=True)
            self.before = None


class _Rollback(Exception):
    """The run has gone back to a checkpoint; the loop starts again from there."""


# -- small things ------------------------------------------------------------------------------------------------------


def machine(device: torch.device) -> dict[str, Any]:
    """What the run ran on: for the log."""
    commit = ""
    with contextlib.suppress(OSError):  # there may be no git
        asked = ["git", "rev-parse", "HEAD"]
        answer = subprocess.run(asked, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
        commit = answer.stdout.strip() if answer.returncode == 0 else ""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("odkit", "torch", "torchvision", "numpy")},
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "commit": commit,
        "pid": os.getpid(),
    }


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
