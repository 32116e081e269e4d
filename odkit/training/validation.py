"""Judging an epoch: the averaged weights over the validation split, the best of them kept."""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from odkit.analysis import evaluate
from odkit.data import Dataset, Predictions
from odkit.detection import (
    DTYPES,
    DataWorkerError,
    Detector,
    PixelCache,
    Tiling,
    gather,
    make_views,
    predict_rows,
    rows_loader,
    save_detector,
)
from odkit.runs import EventLog, Run
from odkit.system import write_file
from odkit.training.checkpoints import Progress
from odkit.training.distributed import all_gather, broadcast, broadcast_tensors, rank, world_size
from odkit.training.errors import is_out_of_memory
from odkit.training.recipe import Choices

PREVIEW_IMAGES = 4
PREVIEW_SCORE = 0.3


class Validation:
    """Judges detectors on a run's validation split, each process a part of it; `warn` logs a kind and a message."""

    def __init__(
        self, run: Run, log: EventLog, choices: Choices, num_workers: int, warn: Callable[[str, str], None]
    ) -> None:
        self.run, self.log, self.choices, self.num_workers, self.warn = run, log, choices, num_workers, warn
        self.settings = run.settings
        self.dataset: Dataset = run.dataset(self.settings.val_split)
        self.batch_size = choices.micro_batch_size
        self.rows = list(range(rank(), len(self.dataset), world_size()))  # this process' part
        self.loader: Any = None  # of these; None: it is to be made anew
        self.cache: PixelCache | None = None  # of resized images, from evaluation to evaluation
        tiling = Tiling(**choices.tiles) if choices.tiles else None
        self.views = len(make_views(self.dataset, tiling).images)  # images, or their tiles

    def judge(self, detector: Detector, epoch: int, at: Progress, stop: Callable[[], bool]) -> bool:
        """Evaluate a detector after an epoch (1-based); keep it where it is the best so far, and note that in `at`.

        Returns:
            False where `stop()` was true before the last image: nothing is judged.
        """
        began = time.monotonic()
        # running figures are each process' own: judged is what is saved
        broadcast_tensors(detector.buffers())
        parts = all_gather(self._found(detector, stop))
        if None in parts:
            return False
        if rank() == 0:
            found = {row: value for part in parts for row, value in part.items()}
            self._take(detector, gather(found, self.dataset, self.run.class_names), epoch, at, began)
        at.best_ap, at.best_epoch = broadcast((at.best_ap, at.best_epoch))  # early stopping is one decision
        return True

    def _take(
        self, detector: Detector, predictions: Predictions, epoch: int, at: Progress, began: float
    ) -> None:
        evaluation = evaluate(self.dataset, predictions)
        ap = evaluation.ap if math.isfinite(evaluation.ap) else 0.0
        best = ap > at.best_ap
        if best:
            at.best_ap, at.best_epoch = ap, epoch
            at.best_figures = {"epoch": epoch, "ap": plain(evaluation.ap), "ap50": plain(evaluation.ap50)}
            save_detector(detector, self.run.path / "detector.safetensors")
            predictions.save(self.run.path / "predictions.npz")
            figures = {"epoch": epoch, "step": at.step, **evaluation.to_dict()}
            write_file(self.run.path / "evaluation.json", orjson.dumps(figures, option=orjson.OPT_INDENT_2))
        self.log.write(
            "evaluation",
            epoch=epoch,
            step=at.step,
            **{key: plain(value) for key, value in evaluation.metrics.items()},
            per_class={row["class"]: plain(row["ap"]) for row in evaluation.per_class},
            best=best,
            best_so_far=at.best_figures,
            seconds=time.monotonic() - began,
        )
        self._preview(predictions, epoch, at)

    def _found(self, detector: Detector, stop: Callable[[], bool]) -> dict[int, Any] | None:
        """What is found in this process' part of the split; None where `stop()` was true."""
        tried_again = False
        while True:
            try:
                if self.loader is None:
                    self.loader = self._loader(detector)
                found = predict_rows(
                    detector,
                    self.dataset,
                    self.rows,
                    precision=DTYPES[self.choices.precision],
                    worker_timeout=self.settings.worker_timeout,
                    stop=stop,
                    loader=self.loader,
                )
                return found if len(found) == len(self.rows) else None
            except DataWorkerError as error:
                self.loader = None
                if tried_again:
                    raise
                tried_again = True
                self.warn("data_worker", f"{error}; started anew")
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self.batch_size <= 1:
                    raise
                self.batch_size //= 2
                self.loader = None
                what = f"out of memory while judging: {self.batch_size} images at once from now on"
                self.warn("out_of_memory", what)

    def _loader(self, detector: Detector) -> Any:
        return rows_loader(
            detector,
            self.dataset,
            self.rows,
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            device=next(detector.parameters()).device,
            worker_timeout=self.settings.worker_timeout,
            cache=self.cache,
            kept=True,
        )

    def _preview(self, predictions: Predictions, epoch: int, at: Progress) -> None:
        images = []
        for row in np.unique(np.linspace(0, len(self.dataset) - 1, PREVIEW_IMAGES).round().astype(int)):
            part = predictions.of(int(row))
            keep = np.flatnonzero(predictions.scores[part] >= PREVIEW_SCORE)[:30] + part.start
            images.append(
                {
                    "row": int(row),
                    "boxes": predictions.boxes[keep].round(1).tolist(),
                    "classes": predictions.classes[keep].tolist(),
                    "scores": predictions.scores[keep].round(3).tolist(),
                }
            )
        self.log.write("preview", epoch=epoch, step=at.step, images=images)


def plain(value: float) -> float | None:
    """A figure as JSON has it: None for what is not finite."""
    return float(value) if math.isfinite(value) else None
