"""Formats: what is written is read again, whatever classes are called and wherever boxes lie."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from odkit.data import Dataset
from odkit.data.formats import load_dataset, write_dataset
from odkit.data.formats.write import WRITERS

SIZES = ((64, 48), (48, 64), (3, 200), (333, 7))

# no control characters and no lone surrogates, which no text file holds; anything else that a person can type
names = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=12
).filter(lambda text: text == text.strip())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        pixels = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@st.composite
def labels(draw: st.DrawFn) -> tuple[list[str], list[tuple[int, int, list[float]]]]:
    """Class names, and boxes as (image, class, xyxy at eighths of pixels); every class has one.

    They are two pixels wide and high at least: where all of a file lie within one, they are taken for shares.
    """
    classes = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    rows = []
    for kind in [*range(len(classes)), *draw(st.lists(st.integers(0, len(classes) - 1), max_size=6))]:
        image = draw(st.integers(0, len(SIZES) - 1))
        box: list[list[float]] = []
        for side in SIZES[image]:
            low = draw(st.integers(0, 8 * (side - 2)))
            box.append([low / 8, draw(st.integers(low + 16, 8 * side)) / 8])
        rows.append((image, kind, [box[0][0], box[1][0], box[0][1], box[1][1]]))
    return classes, sorted(rows, key=lambda row: row[0])


def said(dataset: Dataset) -> list[tuple[bytes, str, tuple[float, ...]]]:
    """Every box as the picture's bytes, its class's name and its corners."""
    pictures = [Path(path).read_bytes() for path in dataset.image_paths]
    return sorted(
        (pictures[image], dataset.class_names[kind], tuple(np.round(box.astype(float), 2).tolist()))
        for image, kind, box in zip(dataset.box_images, dataset.box_classes, dataset.boxes, strict=True)
    )


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=30)
@given(made=labels())
def test_what_is_written_is_read_again(
    kind: str, made: tuple[list[str], list[tuple[int, int, list[float]]]], pictures: list[Path]
) -> None:
    classes, rows = made
    dataset = Dataset(
        name="made",
        root=pictures[0].parent,
        class_names=classes,
        image_paths=[str(path) for path in pictures],
        image_sizes=SIZES,
        boxes=np.array([box for *_, box in rows], np.float32),
        box_classes=[kind for _, kind, _ in rows],
        box_images=[image for image, *_ in rows],
    )
    with tempfile.TemporaryDirectory() as place, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the format cannot hold
        now = load_dataset(write_dataset(dataset, Path(place, "written"), kind), val=0)
        assert [problem for problem in now.source_problems if problem.severity == "fatal"] == []
        theirs, ours = said(now), said(dataset)
        assert [row[:2] for row in theirs] == [row[:2] for row in ours]
        np.testing.assert_allclose([row[2] for row in theirs], [row[2] for row in ours], rtol=0, atol=0.011)
