"""VoTT's CSV, which the reader of any CSV reads."""

from pathlib import Path

from odkit.data.formats.load import load_dataset
from tests.data.formats.layouts import BOXES, SIZES, by_stem, kinds, pictures, put, rows


def test_what_vott_exports_is_such_a_file(tmp_path: Path) -> None:
    """Quoted, in pixels with fractions, images beside; what has no box is not in it."""
    text = '"image","xmin","ymin","xmax","ymax","label"\n'
    for stem in SIZES:
        for name, box in BOXES[stem]:
            text += f'"{stem}.jpg",{",".join(f"{float(number)!r}" for number in box)},"{name}"\n'
    put(tmp_path / "vott-csv-export/pets-export.csv", text)
    pictures(tmp_path, "vott-csv-export/{stem}.jpg")
    dataset = load_dataset(tmp_path, val=0)
    assert dataset.format == "csv"
    assert {stem: rows(dataset, row) for stem, row in by_stem(dataset).items()} == {
        stem: boxes for stem, boxes in BOXES.items() if boxes
    }
    assert kinds(dataset) == ["image_without_labels"]
