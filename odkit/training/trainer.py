"""The trainer: the parts of one worker, and what stands around the loop over them.

A step is the mean over equal shares (micro-batches, processes) of the detector's own loss, so one process that
accumulates and several that share a batch compute the same gradient. Batch norms see their own share alone, as is
usual for fine-tuning; the first process' running figures are the ones judged with and saved.

Several processes are torch's DistributedDataParallel under torchrun. One that cannot go on (no memory, a lost GPU)
says why and leaves; the others meet that at their next message, and torchrun starts all of them again from the
last checkpoint. What is asked of a run (stop, save) is taken up by all at the same step.
"""

import contextlib
import math
import os
import platform
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from odkit.data import ImageReadError
from odkit.detection import (
    DTYPES,
    Batch,
    DataWorkerError,
    DetectionImages,
    Detector,
    Tiling,
    autocast,
    build_detector,
    catalogue_entry,
    choose_workers,
    device_reason,
    freeze_stem,
    last_line,
    make_caches,
    next_batch,
    shaped_like,
    start_epoch,
    workers_fork,
)
from odkit.runs import STOP_SIGNALS, EventLog, Run
from odkit.runs.dashboard import requested
from odkit.system import odkit_version
from odkit.training.average import Average
from odkit.training.batches import EpochSampler, TrainingImages, balanced_shares, training_loader
from odkit.training.checkpoints import (
    CheckpointWriter,
    Progress,
    newest_checkpoint,
    random_state,
    set_random_state,
)
from odkit.training.distributed import (
    all_gather,
    all_reduce_max,
    broadcast,
    data_parallel,
    local_world_size,
    own_device,
    rank,
    world_size,
)
from odkit.training.errors import (
    ShortOfMemoryError,
    TrainingError,
    compiler_said,
    fault_line,
    is_out_of_memory,
)
from odkit.training.loop import Step, train_epoch
from odkit.training.recipe import (
    PLAIN_SHARE,
    Choices,
    View,
    choose,
    choose_precision,
    choose_view,
    make_optimizer,
    schedule,
)
from odkit.training.recovery import (
    Snapshot,
    Trial,
    first_use,
    fitting_micro_batch_size,
    images_that_fit,
    keep_batch,
    no_memory_at_all,
    note_micro_batch_size,
    noted_micro_batch_size,
)
from odkit.training.validation import Validation, plain

BAD_BATCHES_IN_A_ROW = 3  # then back to the last good checkpoint with half the learning rate
ROLLBACKS = 3  # then the run ends
WISHES = ("", "checkpoint", "epoch", "now")  # what is asked of a worker; a later one wins over an earlier one


@dataclass
class Asked:
    """What a signal asked of this process, at any moment; outlives the trainers, and holds none of them in memory."""

    wish: str = ""

    def listen(self) -> None:
        """Take up the signals that stop a run."""

        def stop(number: int, frame: Any) -> None:
            self.wish = "now"

        for number in STOP_SIGNALS:
            signal.signal(number, stop)


class Trainer:
    """The parts of one worker and what guards the loop over them.

    Raises:
        TrainingError: The run cannot go on; all its processes meet the same.
        InputError: There is no such device.
    """

    def __init__(self, run: Run, log: EventLog, asked: Asked) -> None:
        self.run, self.log, self.settings, self.asked = run, log, run.settings, asked
        self.device = own_device(self.settings.device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # whose memory is counted
        given_up = first_use(self.device)
        self.train_set = run.dataset(self.settings.train_split)
        saved = newest_checkpoint(run, log)
        view = self._view(saved)
        torch.manual_seed(self.settings.seed)
        self.detector = self._build(saved, view).to(self.device).to(memory_format=torch.channels_last)
        self.choices = Choices(**saved["choices"]) if saved else self._choose(view)
        self.choices.reasons["device"] = device_reason(
            self.settings.device, self.device
        )  # a resume may change it
        if "epochs" in self.run.config.get("chosen", ()) and not self.settings.minutes:
            self.choices.reasons["epochs"] = f"by the number of training images ({len(self.train_set)})"
        self.at = Progress(total_epochs=self.settings.epochs)
        if saved:
            self.at = self._progress(saved)
        if given_up:
            self._warn("device", given_up)
        self.optimizer = make_optimizer(self.detector, self.choices, self.settings.layer_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.choices.precision == "fp16")
        self.average = Average(self.detector, self.settings.ema)
        self.num_workers, self.choices.reasons["num_workers"] = choose_workers(
            self.settings.num_workers,
            # while an epoch is judged, the next one's first batches lie in shared memory too
            batch_size=2 * math.ceil(self.choices.batch_size / world_size()),
            image_size=self.choices.image_size,
            processes=local_world_size(),
        )
        self.images = self._images(self.choices.augment, self.choices.orientation)
        self.sampler = EpochSampler(
            len(self.images),
            self.choices.batch_size,
            seed=self.settings.seed,
            world=world_size(),
            rank=rank(),
            shares=self._shares(),
        )
        self.snapshot = Snapshot(self.detector)
        self.coming: Iterator[Batch] | None = None  # None: the loader is to be started anew
        self.batch: Batch  # of the step under way
        self.updating = False  # between the first changed weight and the step's being counted
        self.hook = self.optimizer.register_step_pre_hook(self._begin_update)
        if self.settings.compile:
            self._compile()
        # what all agreed on at the same step: a process that left alone would fail the others
        self.request = ""
        self.last_step_saved = -1
        self.last_saved = time.monotonic()
        self.writer = CheckpointWriter(run, log)
        if saved:
            self.restore(saved)
        self._fit_into_memory(saved)
        self.validation = Validation(run, log, self.choices, self.num_workers, self._warn)
        self.cache = self._make_caches()
        self.parallel = data_parallel(self.detector)
        self._say_start(saved)

    def _view(self, saved: dict[str, Any] | None) -> View:
        """How images are shown to the detector: chosen once, and kept over a resume."""
        if saved is None:
            return choose_view(self.settings, self.device, self.train_set)
        choices = Choices(**saved["choices"])
        return View(choices.image_size, Tiling(**choices.tiles) if choices.tiles else None, {})

    def _build(self, saved: dict[str, Any] | None, view: View) -> Detector:
        name, names, size = self.settings.detector, self.run.class_names, view.image_size
        if saved is None:
            detector = build_detector(name, names, weights=self.settings.weights, image_size=size)
        else:  # a resumed run brings its weights along, and must not need the network again
            detector = shaped_like(name, names, saved["detector"], image_size=size)
            if self.settings.weights != "random":
                freeze_stem(detector)
        detector.tiling = view.tiling
        return detector

    def _choose(self, view: View) -> Choices:
        """What the settings leave open; on a GPU, how many images its memory holds is tried first."""
        fitting = None
        if self.device.type == "cuda" and not self.settings.batch_size:
            precision, _ = choose_precision(self.settings, self.device)
            fitting = images_that_fit(
                self.detector,
                self.train_set,
                multi_scale=self.settings.multi_scale,
                precision=DTYPES[precision],
            )
            fitting = -all_reduce_max([-fitting])[0]
        return choose(
            self.settings, self.device, len(self._images("none")), fitting, view, self.run.class_names
        )

    def _progress(self, saved: dict[str, Any]) -> Progress:
        """A checkpoint's progress, its epochs as the settings are now: they may have changed for the resume."""
        at, before = Progress(**saved["progress"]), saved["settings"]
        if at.fitted and self.settings.minutes != before["minutes"]:
            at.fitted = False  # to the new budget, or to none
        if not at.fitted:
            at.total_epochs = self.settings.epochs
        return at

    # -- around the loop -----------------------------------------------------------------------------------------

    def train(self) -> str:
        """Epochs until the end or a stop, the last checkpoint on the disk; returns "finished" or "stopped"."""
        reason = self._train_epochs()
        self.writer.wait()
        return reason

    def close(self) -> None:
        """No more is done: a checkpoint that is being written is written."""
        self.hook.remove()  # it holds the trainer, and with it all that lies in memory
        self.writer.close()

    def _train_epochs(self) -> str:
        self._predict_disk()
        if self.at.step == 0:
            self.save()  # so that a run can always be resumed, and goes back here if its first steps go wrong
        self._take_requests()  # that came while the run was being made ready
        self._fit_to_budget()
        while self.at.epoch < self.at.total_epochs:
            try:
                whole = self.request != "now" and self.train_epoch()
            except _Rollback:
                self.coming = None
                continue
            whole = whole and self.finish_epoch()
            if self.request in ("now", "epoch") or not whole:
                self.save()
                self.writer.wait()
                self.log.write("stop", reason=self.request, step=self.at.step)
                (self.run.path / "stop").unlink(missing_ok=True)
                return "stopped" if self.at.epoch < self.at.total_epochs else "finished"
            if self._patience_is_over():
                break
        return "finished"

    def train_epoch(self) -> bool:
        """The rest of the current epoch; False where a request ended it early.

        Raises:
            ShortOfMemoryError: A pass did not fit into memory; a smaller micro-batch is noted.
        """
        self._freeze_backbone(self.at.epoch < self.settings.freeze_epochs)
        steps = train_epoch(
            self.parallel,
            self._batches(),
            self.optimizer,
            self.scaler,
            self.average,
            rate=self.rate,
            micro_batch_size=self.choices.micro_batch_size,
            precision=DTYPES[self.choices.precision],
            clip=self.settings.clip,
        )
        try:
            for step in steps:
                if not self._take(step):
                    return False
        except (MemoryError, RuntimeError) as error:
            # between two steps it is data or a checkpoint that found no memory, and fewer images at once are no help
            if not is_out_of_memory(error) or self.snapshot.random is None:
                raise
            said = last_line(error)  # not the error itself: its traceback holds the tensors
        else:
            return self.at.batch >= len(self.sampler)
        if self.choices.micro_batch_size <= 1:
            raise no_memory_at_all(self.choices.image_size, said)
        note_micro_batch_size(self.run.path, self.choices.micro_batch_size // 2)
        raise ShortOfMemoryError(said)

    def _take(self, step: Step) -> bool:
        """Count a step, take up requests, save where it is due; whether the epoch goes on."""
        if step.updated:
            self.at.bad_in_a_row = 0
        else:
            self._skip(step)
        self._count(step)
        self.snapshot.drop()
        self.updating = False
        self._fit_to_budget()
        self.writer.check()
        save = self._take_requests()
        if self.request == "now":
            return False
        if save:
            self.save()
        return True

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
        if due and not self._judge(epoch):
            return False
        self.at.epoch, self.at.batch = epoch, 0
        self.at.loss_sum, self.at.loss_count, self.at.epoch_seconds = 0.0, 0, 0.0
        self.save()
        return True

    def _judge(self, epoch: int) -> bool:
        """Judge the averaged weights; False where a request to stop came before the last image."""
        if self.validation.loader is None:
            self._wait_to_fork()
        if self.validation.judge(self.average.detector, epoch, self.at, self._stop_is_asked_for):
            return True
        self.request = "now"
        return False

    def _stop_is_asked_for(self) -> bool:
        """Between two batches of judging: whether to stop at once; a checkpoint asked for is saved on the way."""
        wish = self._filed_request()
        if wish == "checkpoint" and rank() == 0:
            self.save()
        return "now" in (self.asked.wish, wish)

    def _patience_is_over(self) -> bool:
        waited = self.at.epoch - self.at.best_epoch
        if not self.settings.patience or self.at.best_ap < 0 or waited < self.settings.patience:
            return False
        self._warn(
            "early_stop", f"the AP has not risen for {waited} epochs; the best was epoch {self.at.best_epoch}"
        )
        return True

    # -- schedule -------------------------------------------------------------------------------------------------

    def rate(self) -> float:
        """The learning rate of the next step as a share of its peak, 0 to 1."""
        total = self.at.total_epochs * len(self.sampler)
        return schedule(self.at.step, total, self.settings.warmup) * self.at.rate_factor

    def _fit_to_budget(self) -> None:
        budget = self.settings.minutes * 60
        probe = min(20, max(5, len(self.sampler) // 2))
        if not budget or self.at.fitted or self.at.step < probe:
            return
        step_seconds = self.at.seconds / self.at.step
        judging = (
            self.validation.views * step_seconds / self.choices.batch_size / 2 / self.settings.evaluate_every
        )
        an_epoch = len(self.sampler) * step_seconds + judging
        self.at.total_epochs = broadcast(max(self.at.epoch + 1, int(budget / an_epoch)))
        self.at.fitted = True
        self.coming = None  # which images are composed goes by the number of epochs
        self._warn(
            "time_budget",
            f"{self.settings.minutes:g} minutes make {self.at.total_epochs} epochs at {an_epoch:.0f} s each",
        )

    def _freeze_backbone(self, frozen: bool) -> None:
        self.detector.train()
        if not self.settings.freeze_epochs:
            return
        where = self.detector.family.BACKBONE
        backbone = self.detector.module.get_submodule(where)
        # fixed means its batch norms' running figures too; thawed, they are trained like all others
        backbone.train(not frozen)
        before = [p.requires_grad for p in self.detector.parameters()]
        stem = catalogue_entry(self.settings.detector).frozen if self.settings.weights != "random" else ()
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(not frozen and not f"{where}.{name}".startswith(stem or ("\0",)))
        if [p.requires_grad for p in self.detector.parameters()] != before:
            self.parallel = data_parallel(self.detector)

    # -- data -----------------------------------------------------------------------------------------------------

    def _images(self, augment: str, orientation: str = "upright") -> TrainingImages:
        return TrainingImages(
            self.train_set,
            image_size=self.detector.image_size,
            square=self.detector.square,
            tiling=self.detector.tiling,
            augment=augment,
            orientation=orientation,
            mosaic=self.settings.mosaic,
            mixup=self.settings.mixup,
            seed=self.settings.seed,
            multi_scale=self.settings.multi_scale,
        )

    def _make_caches(self) -> str:
        """Caches of resized images for training and for judging; where they are ("off": there are none)."""
        judged = DetectionImages(
            self.validation.dataset,
            image_size=self.detector.image_size,
            square=self.detector.square,
            tiling=self.detector.tiling,
        )
        caches, kind, self.choices.reasons["cache"] = make_caches(
            self.settings.cache,
            [self.images.kept_sizes(), judged.kept_sizes()],
            self.run.path / f"pixels-{rank()}",
            passes=self.at.total_epochs - self.at.epoch,
            processes=local_world_size(),
            forked=not self.num_workers or workers_fork(),
        )
        self.images.cache, self.validation.cache = caches
        return kind

    def _shares(self) -> NDArray[np.float64] | None:
        """How often each row of an epoch comes; None: once."""
        if not self.settings.class_balance:
            return None
        shares = balanced_shares(self.train_set, self.settings.class_balance)
        return shares[
            [self.images.views.images[self.images.view_of(row, 0)] for row in range(len(self.images))]
        ]

    def _loader(self) -> Any:
        return training_loader(
            self.images,
            self.sampler,
            num_workers=self.num_workers,
            divisible=self.detector.divisible,
            pin=self.device.type == "cuda",
            timeout=min(5.0, self.settings.worker_timeout or 5.0),
        )

    def _batches(self) -> Iterator[Batch]:
        """Batches from where the epoch stands, each with a snapshot before its step; a lost worker is replaced once.

        The loader goes on beyond the epoch: its first batches of the next one are made while this one is judged.
        """
        tries = 0
        while self.at.batch < len(self.sampler):  # which counts up with every step
            began = time.monotonic()
            try:
                if self.coming is None:
                    self.coming = self._coming()
                # torch's own handler raises a dead worker's error anywhere, in the middle of a step too; without it
                # the loader finds out when it is next asked for a batch
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                batch = next_batch(self.coming, self.settings.worker_timeout, self._stops_waiting)
            except ImageReadError as error:
                raise ImageReadError(last_line(error)) from None
            except DataWorkerError as error:
                rows = self.sampler.rows(self.at.epoch)[self.at.batch].tolist()
                files = dict.fromkeys(self.images.path_of(row, self.at.epoch) for row in rows)
                if tries:
                    raise DataWorkerError(
                        f"data workers died or hung twice in a row ({error}). They were reading one of: "
                        f"{', '.join(files)}. Try --num-workers 0, or look at these files."
                    ) from error
                tries += 1
                self._warn("data_worker", f"a data worker died or hung ({error}); started anew")
                self.coming = None
                continue
            if batch is None:
                self.request = "now"
                return
            self.waited, self.step_began = time.monotonic() - began, time.monotonic()
            self.batch = batch
            self.snapshot.take()
            yield batch
            tries = 0

    def _stops_waiting(self) -> bool:
        """Whether to stop is asked for while a batch is waited for; several processes go on to the step's end."""
        return world_size() == 1 and "now" in (self.asked.wish, requested(self.run))

    def _coming(self) -> Iterator[Batch]:
        """A new loader's batches, from where the epoch stands to the end of the run."""
        self._wait_to_fork()
        self.sampler.epoch, self.sampler.start = self.at.epoch, self.at.batch
        self.sampler.stop = self.at.total_epochs
        self.sampler.composed = self.at.total_epochs - max(1, math.ceil(PLAIN_SHARE * self.at.total_epochs))
        return start_epoch(self._loader())

    def _wait_to_fork(self) -> None:
        """Until no thread writes: locks that it holds while data workers are forked would never be free in them."""
        self.writer.wait()

    # -- when things go wrong ------------------------------------------------------------------------------------

    def _fit_into_memory(self, saved: dict[str, Any] | None) -> None:
        """As many images at once as fit, in every process: found by trying, or noted by one that ran short."""
        wanted = self.choices.micro_batch_size
        noted = noted_micro_batch_size(self.run.path)
        trial = fitting_micro_batch_size(
            self.detector,
            self.train_set,
            min(wanted, noted or wanted),
            multi_scale=self.settings.multi_scale,
            precision=DTYPES[self.choices.precision],
        )
        if saved is None:
            self._ask_for_patience(trial)
        self.choices.micro_batch_size = -all_reduce_max([-trial.images])[0]
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()  # the trial is no part of the training
        if self.choices.micro_batch_size < wanted:
            self._warn(
                "out_of_memory",
                f"out of memory: {self.choices.micro_batch_size} images at once from now on, accumulated to the same "
                f"batch of {self.choices.batch_size}",
            )

    def _ask_for_patience(self, trial: Trial) -> None:
        """A detector made for GPUs trains on a CPU only where that was asked for: the hours are said first."""
        if self.device.type != "cpu" or self.settings.device != "auto" or self.settings.minutes:
            return
        seconds = trial.seconds / trial.images * len(self.images) * self.settings.epochs / world_size()
        hours = all_reduce_max([round(seconds / 3600)])[0]
        if catalogue_entry(self.settings.detector).heavy and hours >= 1:
            raise TrainingError(
                f"{self.settings.detector} is made for a GPU, and {self.choices.reasons['device']}: "
                f"{self.settings.epochs} epochs of {len(self.train_set)} images would take about {hours} h on this "
                "CPU. If that is what you want: --device cpu. In minutes: --detector starter"
            )

    def _skip(self, step: Step) -> None:
        """Leave a batch out whose loss or gradient is not finite, keep it for a replay, and count."""
        state = self.snapshot.random
        self.optimizer.zero_grad(set_to_none=True)
        self.snapshot.restore()  # batch norms have taken the batch into their running figures
        self.at.skipped += 1
        self.at.bad_in_a_row += 1
        # where the loss was finite everywhere and the gradient was not, each process may have caused it
        own = math.isfinite(sum(step.losses.values())) or not math.isfinite(sum(step.own_losses.values()))
        names = []
        if own:
            name = f"step-{self.at.step:08d}-{self.at.skipped}"
            keep_batch(self.run, self.batch, self.detector, state, name=name)
            names = [str(self.train_set.image_ids[row]) for row in self.batch.rows]
        names = [name for some in all_gather(names) for name in some]
        self._warn(
            "not_finite",
            f"loss or gradient is not finite ({', '.join(f'{k} {v:.3g}' for k, v in step.losses.items())}); the batch "
            f"was left out: {', '.join(names)}. `odkit replay` shows where it comes from.",
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
        self.writer.wait()
        saved = newest_checkpoint(self.run, self.log)
        if saved is None:
            raise TrainingError("the loss is not finite and there is no checkpoint to go back to")
        rollbacks, skipped, factor = self.at.rollbacks + 1, self.at.skipped, self.at.rate_factor / 2
        self.at = self._progress(saved)
        self.restore(saved)
        self.at.rollbacks, self.at.skipped, self.at.rate_factor = rollbacks, skipped, factor
        self.at.bad_in_a_row = 0
        self._warn("rollback", f"back to step {self.at.step} with {factor:g} of the learning rate")
        # what follows replaces the steps that went wrong, like a resume
        self.log.write(
            "start", from_step=self.at.step, from_epoch=self.at.epoch, step=self.at.step, rollback=rollbacks
        )
        raise _Rollback

    def _warn(self, kind: str, message: str) -> None:
        self.log.write("warning", kind=kind, message=message, step=self.at.step, epoch=self.at.epoch + 1)

    def _begin_update(self, *_: Any) -> None:
        self.updating = True

    # -- requests -------------------------------------------------------------------------------------------------

    def _take_requests(self) -> bool:
        """Take up what was asked for, the same in all processes at the same step; whether to save now."""
        filed = self._filed_request() if rank() == 0 else ""
        wish = max(self.asked.wish, self.request, filed, key=WISHES.index)
        which, save = all_reduce_max([WISHES.index(wish), self._save_is_due()])
        if WISHES[which] in ("epoch", "now"):
            self.request = WISHES[which]
        return bool(save) or WISHES[which] == "checkpoint"

    def _filed_request(self) -> str:
        """What the run folder's stop file asks for; a wish for a checkpoint is taken away: the run goes on after it."""
        file = self.run.path / "stop"
        wish = requested(self.run)
        if wish == "checkpoint" and rank() == 0:
            with contextlib.suppress(FileNotFoundError):
                taken = file.with_name("stop.taken")
                file.replace(taken)
                wish = taken.read_text().strip()  # a wish to stop may have taken its place meanwhile
                taken.unlink()
        return wish if wish in WISHES else ""

    # -- checkpoints ----------------------------------------------------------------------------------------------

    def _save_is_due(self) -> bool:
        every = self.settings.checkpoint_steps
        due = bool(every) and self.at.step % every == 0
        minutes = (time.monotonic() - self.last_saved) / 60
        return due or minutes >= self.settings.checkpoint_minutes > 0

    def save(self) -> None:
        """Hand the state to the writer of checkpoints, which may raise that the one before could not be written."""
        self.last_saved = time.monotonic()
        if rank() != 0:
            return
        self.writer.write(self.at.step, self.state())
        self.last_step_saved = self.at.step

    def rescue(self) -> None:
        """A last checkpoint after a fault, where the state is that between two steps and can still be read."""
        if rank() != 0:
            return
        try:
            self.writer.wait()
            if self.last_step_saved == self.at.step:
                return
            if self.updating:
                raise TrainingError("the fault came in the middle of the weights' update")
            self.snapshot.restore()
            self.save()
            self.writer.wait()
        except Exception as error:  # on a device that is gone everything fails; the last checkpoint is there
            message = (
                f"no checkpoint could be written after the fault ({fault_line(error)}); the last one stands"
            )
            self._warn("no_checkpoint", message)

    def state(self) -> dict[str, Any]:
        """Everything a resume needs, as plain tensors and numbers."""
        return {
            "format": 2,
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
        # weights, average, two moments, and the new one beside the kept
        need = 5 * weights * (self.settings.keep + 1)
        free = broadcast(psutil.disk_usage(str(self.run.path)).free)  # all processes go on, or none
        if free < need:
            raise TrainingError(
                f"checkpoints need about {need / 1e6:.0f} MB and {self.run.path} has {free / 1e6:.0f} MB free; "
                "free some space, choose another --folder, or --keep 1"
            )

    # -- saying ---------------------------------------------------------------------------------------------------

    def _count(self, step: Step) -> None:
        total = sum(step.losses.values())
        seconds = self.waited + time.monotonic() - self.step_began
        self.at.step += 1
        self.at.batch += 1
        self.at.seconds += seconds
        self.at.epoch_seconds += seconds
        if math.isfinite(total) and math.isfinite(step.grad_norm):
            self.at.loss_sum += total
            self.at.loss_count += 1
        self.log.write(
            "step",
            step=self.at.step,
            epoch=self.at.epoch + 1,
            loss=plain(total),
            losses={name: plain(value) for name, value in step.losses.items()},
            learning_rate=self.optimizer.param_groups[0]["lr"],
            grad_norm=plain(step.grad_norm),
            images_per_second=len(self.batch) * world_size() / max(seconds, 1e-9),
            data_wait=self.waited / max(seconds, 1e-9),
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
            num_workers=self.num_workers,
            cache=self.cache,
            choices=dict(vars(self.choices)),
            dataset=self.run.config["dataset"],
            fingerprint=self.run.config["fingerprint"],
            images={"train": len(self.train_set), "val": len(self.validation.dataset)},
            settings=self.settings.to_dict(),
            machine=machine(self.device),
        )

    def _compile(self) -> None:
        from torch._inductor.cpp_builder import get_cpp_compiler

        family = self.detector.family
        backbone: Any = self.detector.module.get_submodule(family.BACKBONE)
        size = self.choices.image_size
        images = torch.zeros(2, 3, size, size, device=self.device).contiguous(
            memory_format=torch.channels_last
        )
        self.snapshot.take()
        try:
            if self.device.type == "cpu":
                get_cpp_compiler()  # says at once what would come out after a minute of work
            backbone.compile(dynamic=True)
            with autocast(self.device, DTYPES[self.choices.precision]):
                maps = family.features(self.detector.module, images)
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
            self.snapshot.restore()
            self.optimizer.zero_grad(set_to_none=True)


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
        "odkit": odkit_version(),
        **{name: version(name) for name in ("torch", "torchvision", "numpy")},
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "commit": commit,
        "pid": os.getpid(),
    }
