"""The command that measures detectors."""

from pathlib import Path

from tyro.conf import Positional

from odkit.cli.flags import Classes, Reading
from odkit.cli.shared import check_figure, command, print_json, read_dataset, write_figure
from odkit.system import InputError


@command
def benchmark(
    detectors: Positional[tuple[str, ...]],
    *,
    data: str = "",
    classes: Classes = Classes(),
    reading: Reading = Reading(),
    device: str = "auto",
    seconds: float = 5.0,
    images: int = 500,
    largest_batch: int = 64,
    figure: Path | None = None,
    json: bool = False,
) -> int:
    """Measure how fast detectors are on this machine, what memory they take and how good they are, in a table.

    Of a run its PyTorch detector is measured and each file that `odkit export` has made of it; the answer is kept in
    its folder, benchmark.json.

    Args:
        detectors: Runs (folder or name), folders that `odkit export` wrote, or detector files.
        data: Folder or label file of a dataset to measure on, or "demo": its split "val", or all of it where it has
            none. Default: the first run's validation images; for files alone drawn pictures, and no AP.
        classes: Which classes of the dataset, and under which names.
        reading: How the dataset is read.
        device: Where to compute: auto (what training would choose), cpu, cuda, cuda:1, mps.
        seconds: That each is timed, about; the start of its process and AP come on top.
        images: AP is of so many images of the dataset at most; 0: no AP.
        largest_batch: The largest batch size that is tried.
        figure: Picture file to draw the table into (.png, .svg, .pdf).
        json: Print JSON.
    """
    from odkit.runs import benchmark as measured

    if not detectors:
        raise InputError("nothing to measure: odkit benchmark RUN_OR_FILE...; `odkit runs` lists runs")
    check_figure(figure)
    dataset = read_dataset(data, classes, reading) if data else None
    found = measured(
        detectors, dataset, device=device, seconds=seconds, images=images, largest_batch=largest_batch
    )
    if figure is not None:
        from odkit.analysis.figures import benchmark as draw

        write_figure(draw(found), figure)
    if json:
        print_json(found.to_dict())
    else:
        print(found)
    return 0 if any(row.paces for row in found.rows) else 1
