"""The audit itself: every check over a dataset, and the refusal to train on what must be repaired first."""

from dataclasses import replace

import numpy as np

from odkit.data.audit.checks import CHECKS, Hit
from odkit.data.audit.files import read_files
from odkit.data.audit.report import SEVERITIES, Audit, Finding, group_lines
from odkit.data.audit.subject import Subject
from odkit.data.dataset import Dataset, SourceProblem
from odkit.system import InputError, OdkitError, counted

TINY = 2.0  # pixels
DUPLICATE_IOU = 0.95


class DatasetFaultError(OdkitError, ValueError):
    """Training was asked for on a dataset with fatal findings; the message is their table, `audit` the whole."""

    def __init__(self, message: str, audit: Audit) -> None:
        super().__init__(message)
        self.audit = audit


def audit(
    dataset: Dataset,
    *,
    decode: bool = True,
    num_workers: int | None = None,
    files: bool = True,
    tiny: float = TINY,
    duplicate_iou: float = DUPLICATE_IOU,
) -> Audit:
    """Everything that is wrong with a dataset: its files, sizes, boxes, classes and splits.

    Nothing of the dataset is changed. The findings of the reader (`dataset.source_problems`) are included. A file that
    was decoded for an earlier audit, here or in another process, and has stayed the same is not decoded again.

    Args:
        dataset: What to look at.
        decode: Decode every image in full, which finds those cut short or of one colour, those with equal pixels,
            those that look the same, and those with the labels of another; without it only headers are read, and files
            of equal length compared.
        num_workers: Threads that read images; None: two more than this process may use CPU cores.
        files: Open the image files at all, and list what lies beside them; False looks at the columns alone.
        tiny: Boxes with a side below this are listed, in pixels.
        duplicate_iou: Boxes of one image that overlap by more than this (intersection over union) are the same box.

    Raises:
        ValueError: `tiny` is negative, `duplicate_iou` is not between 0.5 and 1, or `workers` is below 1.
    """
    if tiny < 0 or not 0.5 <= duplicate_iou < 1:
        raise InputError(
            f"tiny={tiny} must be 0 or more and duplicate_iou={duplicate_iou} from 0.5 to below 1"
        )
    if num_workers is not None and num_workers < 1:
        raise InputError(f"num_workers={num_workers} must be 1 or more (None chooses)")
    read = read_files(dataset, decode, num_workers) if files else None
    subject = Subject(dataset, read, tiny, duplicate_iou)
    own = [finding for kind in CHECKS for finding in findings_of(kind, subject)]
    findings = _with_source_problems(dataset, own)
    ranks = {kind: rank for rank, kind in enumerate(CHECKS)}
    findings.sort(key=lambda f: (SEVERITIES.index(f.severity), ranks.get(f.kind, len(ranks)), f.kind))
    return Audit(dataset, tuple(findings), subject)


def require_trainable(dataset: Dataset, audit: Audit | None = None) -> Audit:
    """The dataset's audit (made where not given), provided that nothing in it is fatal.

    Raises:
        DatasetFaultError: Something is fatal; the message lists it with the one call that repairs it.
        ValueError: `audit` is of another dataset.
    """
    found = audit_of(dataset, audit)
    fatal = found.fatal
    if fatal:
        head = f"{dataset.name!r} has {counted(len(fatal), 'finding')} with which training would crash or go wrong."
        raise DatasetFaultError("\n".join([head, *group_lines(fatal, 5), *found._advice()]), found)
    return found


# -- from hits to findings -------------------------------------------------------------------------------------------


def findings_of(kind: str, subject: Subject) -> list[Finding]:
    """What one check finds."""
    check, names = CHECKS[kind], {-1: ("", "")}
    return [_finding(subject.dataset, kind, hit, names) for hit in check.find(subject)] if check.find else []


def _finding(dataset: Dataset, kind: str, hit: Hit, names: dict[int, tuple[str, str]]) -> Finding:
    """A finding; `names` keeps path and id of images, so that all findings of one share them."""
    check = CHECKS[kind]
    if hit.image not in names:
        names[hit.image] = dataset.image_paths[hit.image], dataset.image_ids[hit.image]
    file, image = names[hit.image]
    return Finding(
        kind=kind,
        severity=check.severity,
        message=hit.message,
        fix=check.fix if hit.fix is None else hit.fix,
        file=file or hit.file,
        image=image,
        box=dataset.box_ids[hit.box] if hit.box >= 0 else "",
        image_index=hit.image,
        box_index=hit.box,
        repair=check.repair if hit.repair is None else hit.repair,
    )


def _with_source_problems(dataset: Dataset, own: list[Finding]) -> list[Finding]:
    """Our findings and the reader's; where both name the same thing, ours with the reader's words (it saw the file)."""
    if not dataset.source_problems:
        return own
    places = {image_id: index for index, image_id in enumerate(dataset.image_ids.tolist())}
    ours = {(f.kind, f.image, f.box): row for row, f in enumerate(own)}
    findings = list(own)
    for problem in dataset.source_problems:
        row = ours.get((problem.kind, problem.image, problem.box))
        image = places.get(problem.image, -1)
        if row is None:
            findings.append(_source_finding(dataset, problem, image))
        else:
            findings[row] = replace(own[row], message=problem.message, fix=problem.fix, file=problem.file)
    return findings


def _source_finding(dataset: Dataset, problem: SourceProblem, image: int) -> Finding:
    box = -1
    if problem.box and image >= 0:
        rows = dataset.boxes_of(image)
        same = np.flatnonzero(dataset.box_ids[rows] == problem.box)
        box = rows.start + int(same[0]) if len(same) else -1
    severity = problem.severity if problem.severity in SEVERITIES else "warning"
    repair = ""
    if severity == "fatal":  # without its labels an image would count as empty
        whole_image = image >= 0 and not problem.box
        repair = "drops the box" if box >= 0 else "drops the image" if whole_image else "leaves it out"
    return Finding(
        kind=problem.kind,
        severity=severity,
        message=problem.message,
        fix=problem.fix,
        file=problem.file,
        image=problem.image,
        box=problem.box,
        image_index=image,
        box_index=box,
        repair=repair,
    )


def audit_of(dataset: Dataset, given: Audit | None) -> Audit:
    if given is None:
        return audit(dataset)
    if given.dataset is not dataset and given.dataset.fingerprint() != dataset.fingerprint():
        raise InputError(
            f"the audit is of {given.dataset.name!r} ({given.dataset.fingerprint()}), not of this {dataset.name!r} "
            f"({dataset.fingerprint()}); give it the audit of this one, or none"
        )
    return given
