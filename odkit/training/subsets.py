"""The same recipe on parts of the training images, each part within the next: what a learning curve is made of."""

import dataclasses
import math
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from odkit.analysis import LEAST_POINTS, LearningCurve, fit_learning_curve
from odkit.data import Dataset
from odkit.runs import (
    RUNS,
    Run,
    RunError,
    Settings,
    check_name,
    create_run,
    make_settings,
    plain_name,
    with_epochs,
)
from odkit.system import FileInTheWayError, InputError, write_file

FRACTIONS = (0.1, 0.25, 0.5, 1.0)
MOST_PASSES = 10
"""How many times the epochs of the whole a small part is trained for at most."""

_LEAST_BATCH = 4  # what a run on a CPU takes; fewer images would make another recipe
_OF_A_HALF_MADE_RUN = re.compile(r"(dataset\.npz|test\.npz|audit\.json|config\.json)(\..*)?")
_MAY_DIFFER = ("num_workers", "worker_timeout", "checkpoint_minutes", "checkpoint_steps", "keep", "device")


def learning_curve(
    dataset: Dataset,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seeds: int = 1,
    folder: str | Path = RUNS,
    name: str | None = None,
    **settings: Any,
) -> LearningCurve:
    """How many pictures do I need? AP with 10, 25, 50 and 100% of the training images, and what more would give.

    Each part is a run of its own, judged on the same validation images, one run after the other in one folder. The
    parts are nested (the 10% are among the 25%), dealt from the seed, each class in proportion and with an image at
    least where that can be. The whole comes first: it is the run that one would make anyway, and says how long the
    others will take, for each takes the same number of optimizer steps, its epochs multiplied accordingly (by ten at
    most). The question is what pictures give: with equal epochs a tenth of the images would also get a tenth of the
    training, and the curve would promise of pictures what more patience gives as well. That few images are learnt by
    heart in so many epochs does little harm, for the best epoch is kept; it is chosen among as many looks at the
    validation images as in the other runs, so that it has no more luck than they.

    Interrupted at any moment and called again, it goes on where it stopped; runs that are finished are not repeated.

    Args:
        dataset: Its "train" split is taken apart, its "val" split judges; both dealt from the seed if it has none.
        fractions: Shares of the training images, 0 to 1; the whole is always among them. What makes no sense (fewer
            images than a batch, a class without an image) is left out, and that is said.
        seeds: How often each part is drawn and trained, from seeds that count up. Several cost as many times more, and
            measure how much of the curve is luck.
        folder: Where the curve's folder is made.
        name: Name of that folder; None: made from dataset and detector.
        settings: As `fine_tune` takes them: detector, epochs, seed and the fields of `Settings`.

    Returns:
        The curve; it is written to `learning_curve.json` in its folder, too. `figures.learning_curve` draws it.

    Raises:
        InputError: The training images are too few for three points, or a setting is out of range.
        RunError: A run was stopped before its end (the message says how to go on), or the folder holds other runs.
        DatasetFaultError: As `fine_tune`.
    """
    plan = plan_learning_curve(
        dataset, make_settings(settings), fractions=fractions, seeds=seeds, folder=folder, name=name
    )
    for run in plan.runs:
        if run.state != "finished":
            print(plan.outlook(), flush=True)
            plan.start(run)
            run.wait()
        if run.state != "finished":
            raise RunError(f"{run.name} is {run.state}, not finished; call this again to go on with it")
    return plan.measure()


@dataclass(frozen=True)
class CurvePlan:
    """The runs of a learning curve, trained or not; their folders are there from the beginning.

    Attributes:
        dataset: Name of the dataset.
        path: Folder of the curve, and of its runs.
        runs: The whole first, then smaller and smaller parts.
        settings: Of the run on the whole.
        notes: What was left out or differs, and why.
    """

    dataset: str
    path: Path
    runs: tuple[Run, ...]
    settings: Settings
    notes: tuple[str, ...]

    def start(self, run: Run) -> None:
        """Start or resume one of the runs, in the background; nothing where a worker is at it."""
        if not run.alive:
            run.resume(wait=False, **{name: getattr(self.settings, name) for name in _MAY_DIFFER})

    def outlook(self) -> str:
        """What is still to be trained, and how long it will take as far as the runs behind it tell."""
        done = [run for run in self.runs if run.state == "finished"]
        left = [run for run in self.runs if run not in done]
        what = (
            f"Learning curve of {self.dataset}: {len(left)} of {len(self.runs)} runs to train in {self.path}"
        )
        if self.settings.minutes:
            return f"{what}, {self.settings.minutes:g} minutes each."
        if not done:
            return (
                f"{what}, one after the other. The first, on all {_images(self.runs[0]):,} training images, says how "
                "long it takes; each of the others takes about as long."
            )
        pace = sum(map(_seconds, done)) / sum(map(_work, done))
        minutes = max(1, math.ceil(pace * sum(map(_work, left)) / 60))
        return f"{what}, about {minutes:,} minute{'s' * (minutes > 1)}."

    def measure(self) -> LearningCurve:
        """The curve through the finished runs, written to `learning_curve.json` in the folder."""
        judged = [(_images(run), run.evaluation(), run.path) for run in self.runs]
        curve = fit_learning_curve(judged, name=self.dataset, notes=self.notes, seed=self.settings.seed)
        write_file(
            self.path / "learning_curve.json",
            orjson.dumps(curve.to_dict(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        )
        return curve


def plan_learning_curve(
    dataset: Dataset,
    settings: Settings,
    *,
    fractions: Sequence[float] = FRACTIONS,
    seeds: int = 1,
    folder: str | Path = RUNS,
    name: str | None = None,
) -> CurvePlan:
    """Make the run folders of a learning curve, or find those that are there; see `learning_curve`."""
    if name is not None:
        check_name(name)
    if seeds < 1:
        raise InputError(f"seeds must be 1 or more, not {seeds}")
    if wrong := [share for share in fractions if not 0 < share <= 1]:
        raise InputError(f"fractions are shares of the training images, above 0 and up to 1, not {wrong[0]}")
    if not dataset.split_counts():
        dataset = dataset.with_splits(val=0.2, seed=settings.seed)
    train, val = dataset.split(settings.train_split), dataset.split(settings.val_split)
    settings = _settled(settings, train)
    if not len(val.boxes):
        raise InputError(
            f"the {settings.val_split!r} split of {dataset.name} has no boxes: nothing to judge by"
        )
    orders = [nested_order(train, seed=settings.seed + draw) for draw in range(seeds)]
    sizes, notes = _sizes(train, orders, fractions, settings)
    used = dataset.select(
        (dataset.image_splits == settings.train_split) | (dataset.image_splits == settings.val_split)
    )
    stem = name or f"{dataset.name}-{settings.detector}"
    path = Path(folder) / (plain_name(stem) + ("" if name else f"-learning-curve-{used.fingerprint()[:8]}"))
    runs = []
    for share in sorted(sizes, reverse=True):
        for draw, order in enumerate(orders):
            keep = np.ones(len(used), bool)
            keep[np.flatnonzero(used.image_splits == settings.train_split)[order[sizes[share] :]]] = False
            wanted = _settings_of_part(settings, len(train) / sizes[share], settings.seed + draw)
            run_name = f"{100 * share:.4g}-percent-seed-{wanted.seed}"
            runs.append(_found_or_made(used.select(keep), wanted, path, run_name))
    return CurvePlan(dataset.name, path.absolute(), tuple(runs), settings, tuple(notes))


def nested_order(dataset: Dataset, *, seed: int = 0) -> NDArray[np.int64]:
    """The images in an order of which every beginning is like the whole, int64 [N].

    First stand a few images that hold every class (the rarest class is served first), then all others, so that the
    images of each rarest class (that of an image's classes with the fewest images; or none) are spread evenly.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(dataset))
    known = dataset.box_classes >= 0
    holds = np.zeros((len(dataset), len(dataset.class_names) + 1), bool)
    holds[dataset.box_images[known], dataset.box_classes[known]] = True
    holds[:, -1] = True  # the images without boxes are a class of their own
    totals = holds.sum(0)
    place = np.empty(len(dataset))
    rarest = np.where(holds, totals, len(dataset) + 1).argmin(1)
    for k in np.unique(rarest):
        members = shuffled[rarest[shuffled] == k]
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    first: list[int] = []
    served = totals[:-1] == 0
    for k in np.argsort(totals[:-1], kind="stable"):
        if not served[k]:
            first.append(int(shuffled[holds[shuffled, k]][0]))
            served |= holds[first[-1], :-1]
    place[first] = np.arange(len(first)) - len(first)
    return np.argsort(place, kind="stable")


def _sizes(
    train: Dataset, orders: Sequence[NDArray[np.int64]], fractions: Sequence[float], settings: Settings
) -> tuple[dict[float, int], list[str]]:
    """Number of images of each share that makes sense, and what is to be said of the others."""
    least = settings.batch_size or _LEAST_BATCH
    sizes: dict[float, int] = {}
    notes = []
    for share in sorted({*map(float, fractions), 1.0}, reverse=True):
        size = max(1, round(share * len(train)))
        what = f"{100 * share:.4g}% of the training images ({size:,})"
        missing = sorted({k for order in orders for k in _missing_classes(train, order[:size])})
        if size in sizes.values():
            notes.append(f"{what} left out: as many as of another share.")
        elif size < least:
            notes.append(f"{what} left out: fewer than a batch of {least}.")
        elif missing:
            notes.append(
                f"{what} left out: they cannot hold every class ({train.class_names[missing[0]]!r} is missing)."
            )
        else:
            sizes[share] = size
            if share < 1 / MOST_PASSES:
                notes.append(f"{what} have {MOST_PASSES} times the epochs of the whole, so fewer steps.")
    if len(sizes) < LEAST_POINTS:
        raise InputError(
            f"the {len(train)} training images of {train.name} are too few for a learning curve of these fractions: it "
            f"needs {LEAST_POINTS} points and this makes {len(sizes)}. {' '.join(notes)}"
        )
    return sizes, notes


def _missing_classes(dataset: Dataset, images: NDArray[np.int64]) -> set[int]:
    """The classes that stand in the dataset and not in these images of it."""
    return set(dataset.box_classes.tolist()) - set(dataset.select(images).box_classes.tolist())


def _settled(settings: Settings, train: Dataset) -> Settings:
    """The settings with all filled in that a part by itself would choose otherwise than the whole."""
    from odkit.detection import pick_device
    from odkit.training.recipe import choose_view, fitting_augmentation

    settings = with_epochs(settings, len(train))
    view = choose_view(settings, pick_device(settings.device), train)
    augment: Any = settings.augment
    if augment == "auto":
        augment, _ = fitting_augmentation(settings)
    tiles = view.tiling.size if view.tiling else 0
    return dataclasses.replace(settings, image_size=view.image_size, tiles=tiles, augment=augment)


def _settings_of_part(settings: Settings, passes: float, seed: int) -> Settings:
    """The settings of a run on one of so many equal parts: as many steps, judged as often."""
    passes = min(passes, MOST_PASSES)
    counted_in_epochs = ("epochs", "evaluate_every", "patience", "freeze_epochs")
    return dataclasses.replace(
        settings, seed=seed, **{name: round(getattr(settings, name) * passes) for name in counted_in_epochs}
    )


def _found_or_made(dataset: Dataset, settings: Settings, folder: Path, name: str) -> Run:
    """The run of that name on these data with these settings, new or not.

    Raises:
        RunError: The run of that name is another one.
    """
    path = folder / name
    if not (path / "config.json").exists():
        if path.exists():  # killed while the folder was being made
            if strange := [one.name for one in path.iterdir() if not _OF_A_HALF_MADE_RUN.fullmatch(one.name)]:
                raise FileInTheWayError(
                    f"{path} is there already, no run, and has {strange[0]} in it: give this curve another name"
                )
            shutil.rmtree(path)
        return create_run(dataset, settings, folder, name)
    run = Run(path)
    was, now = run.settings.to_dict(), settings.to_dict()
    other = [
        f"{key} {was[key]!r} (now {now[key]!r})"
        for key in now
        if key not in _MAY_DIFFER and was[key] != now[key]
    ]
    if run.config["fingerprint"] != dataset.fingerprint():
        other.insert(0, "other images or labels")
    if other:
        raise RunError(
            f"{folder} holds a learning curve of something else: {name} has {', '.join(other)}. Give this one another "
            "name=..., or remove that folder"
        )
    return run


def _images(run: Run) -> int:
    """Training images of a run."""
    return int(run.config["images"][run.settings.train_split])


def _work(run: Run) -> int:
    """Images that go through the detector in a run."""
    return run.settings.epochs * _images(run)


def _seconds(run: Run) -> float:
    """What a run took, judging and saving included."""
    return math.fsum(
        event.get("seconds", 0.0) for event in run.events(only=("epoch", "evaluation", "checkpoint"))
    )
