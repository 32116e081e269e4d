"""The repaired view says what it did and leaves the files alone."""

import hashlib

from odkit.data.audit.repair import repaired
from tests.data.audit.bench import PLANTS, Bench


def test_repairs_say_what_they_did_and_leave_the_files_alone(tmp_path):
    bench = Bench(tmp_path)
    for plant in PLANTS:
        plant(bench)
    before = snapshot(tmp_path)
    dataset = bench.build()
    fingerprint = dataset.fingerprint()
    view = repaired(dataset)
    assert snapshot(tmp_path) == before
    assert dataset.fingerprint() == fingerprint
    notes = "\n".join(view.notes)
    assert "repaired: 1 box without area dropped (07.png, box 5)" in notes
    assert "repaired: 1 box with inverted corners put in order (07.png, box 6)" in notes
    assert "repaired: 1 image not found on disk dropped (00.png)" in notes
    assert "repaired: 1 image in two splits dropped (leak.png)" in notes
    assert view.boxes[view.boxes_of(view.index_of("07.png"))].tolist()[-1] == [2, 3, 20, 25]
    assert view.boxes[view.boxes_of(view.index_of("08.png"))].tolist()[-2] == [30, 1, 40, 20]


def snapshot(folder):
    return {
        path.name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.iterdir())
    }
