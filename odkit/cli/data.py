"""Commands for datasets."""

from pathlib import Path

from tyro.conf import Positional

from odkit.cli.flags import Classes, Reading, Writable
from odkit.cli.shared import command, read_dataset, warnings_said
from odkit.system import LeftOutWarning


@command
def audit(
    path: Positional[str],
    *,
    reading: Reading = Reading(),
    labels_only: bool = False,
    examples: int = 5,
    json: bool = False,
) -> int:
    """Say everything that is wrong with a dataset; the exit status is 1 where something must be repaired to train.

    Args:
        path: Folder or label file of a dataset, or "demo".
        reading: How the dataset is read.
        labels_only: Look at the labels alone: no split is dealt, and of image files only the header is read, where the
            labels do not state an image's size.
        examples: Examples of each kind of finding to print.
        json: Print JSON, with all findings.
    """
    from odkit.data.audit import audit as audit_dataset

    # dealing a split looks at every image
    dataset = read_dataset(path, reading=reading, val=0 if labels_only else 0.2)
    found = audit_dataset(dataset, files=not labels_only)
    print(found.to_json().decode() if json else found.table(limit=examples))
    return 0 if found.ok else 1


@command
def convert(
    source: Positional[str],
    target: Positional[Path],
    *,
    to: Writable,
    classes: Classes = Classes(),
    reading: Reading = Reading(),
    partial: bool = False,
) -> int:
    """Write a dataset in another format; the source stays as it is. No splits are dealt.

    Where labels would be lost, as they cannot be read or have no class, nothing is written. The exit status is 1 where
    what is written is not the whole.

    Args:
        source: Folder or label file of a dataset, or "demo".
        target: Folder to write to.
        to: Format to write.
        classes: Which classes of the dataset, and under which names; the files stay as they are.
        reading: How the source is read.
        partial: Leave out the labels that would be lost, and the images of which no label is left then.
    """
    from odkit.data.formats import write_dataset

    with warnings_said() as said:  # what is left out, what the format cannot hold
        dataset = read_dataset(source, classes, reading, val=0)
        written = write_dataset(dataset, target, to, partial=partial)
    print(f"written to {written} ({to})\n  odkit audit {target}")
    return int(any(issubclass(warning.category, LeftOutWarning) for warning in said))


@command
def demo(folder: Positional[Path], *, images: int = 400, seed: int = 0, faults: bool = False) -> int:
    """Draw the demo dataset into a folder: workshop parts on a bench, five classes, COCO's format.

    Args:
        folder: Folder to write to; new or empty.
        images: Number of images.
        seed: Another seed gives other images.
        faults: Plant the faults that datasets have in the wild, for `odkit audit` to find.
    """
    from odkit.data.demo import write_demo

    written = write_demo(folder, images=images, seed=seed, faults=faults)
    print(f"{images} images in {written}\n  odkit audit {folder}\n  odkit train {folder}")
    return 0
