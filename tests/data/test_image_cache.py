"""No file is decoded twice while it stays the same, in this process or another; and the cache is never in the way."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odkit.data import image_cache, image_facts
from odkit.data.audit import audit, repaired, require_trainable
from odkit.data.dataset import Dataset
from odkit.data.images import ImageReadError
from odkit.runs import Settings
from odkit.runs.run import create_run
from odkit.system import machine


@pytest.fixture
def decoded(tmp_path, monkeypatch):
    """The names of the files that were decoded so far; the cache knows nothing yet, and new files count as old."""
    monkeypatch.setenv("ODKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(image_cache, "_memory", {})
    monkeypatch.setattr(image_cache, "RACY", 0)
    names = []
    real = image_facts.opened
    monkeypatch.setattr(
        image_facts, "opened", lambda path: (names.append(os.path.basename(path)), real(path))[1]
    )
    return names


def noise(path, seed, size=(40, 30)):
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)).save(path)


@pytest.fixture
def dataset(tmp_path):
    """Twelve images with a box each; two are copies, one is cut short, one is no image and one is of one colour."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(12):
        noise(folder / f"{i:02}.jpg", i)
    (folder / "05.jpg").write_bytes((folder / "04.jpg").read_bytes())
    (folder / "07.jpg").write_bytes((folder / "07.jpg").read_bytes()[:-400])
    (folder / "08.jpg").write_text("<html>")
    Image.new("RGB", (40, 30), (9, 9, 9)).save(folder / "09.jpg")
    return Dataset(
        name="kept",
        root=folder,
        class_names=("thing",),
        image_paths=[str(folder / f"{i:02}.jpg") for i in range(12)],
        image_sizes=[(40, 30)] * 12,
        image_splits=["train"] * 8 + ["val"] * 4,
        boxes=[(3, 4, 20, 20)] * 12,
        box_classes=[0] * 12,
        box_images=range(12),
    )


def forget():
    """As another process begins."""
    image_cache._memory.clear()


def database(tmp_path):
    return tmp_path / "cache" / "images-4.sqlite"


def test_the_second_audit_decodes_nothing(dataset, decoded):
    first = audit(dataset)
    assert sorted(decoded) == [f"{i:02}.jpg" for i in range(12) if i != 8]  # that one has no header
    decoded.clear()
    assert audit(dataset).findings == first.findings
    forget()
    assert audit(dataset).findings == first.findings
    assert decoded == []
    assert {f.kind for f in first} >= {"unreadable_image", "duplicate_image", "one_colour"}


def test_repairing_and_training_decode_nothing(dataset, decoded, tmp_path):
    found = audit(dataset)
    decoded.clear()
    forget()
    view = repaired(dataset, found)
    assert repaired(dataset).fingerprint() == view.fingerprint()
    require_trainable(view)
    assert not audit(view).fatal
    forget()
    create_run(view, Settings(detector="starter"), tmp_path / "runs")
    assert decoded == []


def test_a_file_that_changed_is_decoded_again(dataset, decoded):
    audit(dataset)
    decoded.clear()
    paths = [Path(path) for path in dataset.image_paths]
    noise(paths[0], 100)
    times = paths[1].stat()
    noise(paths[1], 101)  # the same length, perhaps, and made to have the same time
    os.utime(paths[1], ns=(times.st_atime_ns, times.st_mtime_ns))
    noise(paths[2].with_suffix(".new.jpg"), 102)
    paths[2].with_suffix(".new.jpg").replace(paths[2])
    paths[5].unlink()
    noise(paths[7], 7)  # whole again
    found = audit(dataset)
    assert sorted(decoded) == ["00.jpg", "01.jpg", "02.jpg", "07.jpg"]
    assert {(f.kind, f.image) for f in found.fatal} == {
        ("missing_image", "05.jpg"),
        ("unreadable_image", "08.jpg"),
    }


def test_a_file_is_trusted_only_once_it_has_aged(dataset, decoded, monkeypatch):
    """Within a tick of the file system's clock a file can change and keep its time: git's rule for its index."""
    monkeypatch.undo()
    monkeypatch.setenv("ODKIT_CACHE", str(dataset.root.parent / "cache"))
    monkeypatch.setattr(image_cache, "_memory", {})
    path = dataset.image_paths[0]
    assert image_cache.stamp(path) == ""
    audit(dataset)
    assert not image_cache._memory
    later = time.time_ns() + 2_100_000_000
    monkeypatch.setattr(image_cache.time, "time_ns", lambda: later)
    assert image_cache.stamp(path)
    audit(dataset)
    assert len(image_cache._memory) == 11
    os.utime(path, ns=(later, later + 10**12))  # a clock that is wrong, a file of tomorrow
    assert image_cache.stamp(path) == ""


def test_headers_do_not_answer_for_pixels(dataset, decoded):
    headers = audit(dataset, decode=False)
    assert decoded == []
    whole = audit(dataset)
    assert len(decoded) == 11
    forget()
    assert audit(dataset, decode=False).findings == headers.findings  # from what was decoded
    assert audit(dataset).findings == whole.findings
    assert len(decoded) == 11


def test_what_may_pass_is_not_kept(dataset, decoded, monkeypatch):
    real = image_facts.opened

    def fail(path):
        error = ImageReadError(path)
        error.reason = OSError(errno.EIO, "Input/output error")
        raise error

    monkeypatch.setattr(image_facts, "opened", fail)
    assert len(audit(dataset).of("unreadable_image")) == 12
    monkeypatch.setattr(image_facts, "opened", real)
    assert len(audit(dataset).of("unreadable_image")) == 2
    assert len(decoded) == 11


def test_another_way_of_reading_is_another_answer(dataset, decoded, monkeypatch):
    audit(dataset)
    decoded.clear()
    monkeypatch.setattr(image_facts.Image, "MAX_IMAGE_PIXELS", 100_000)
    audit(dataset)
    assert len(decoded) == 11


def test_an_interrupted_audit_keeps_what_it_found(dataset, decoded, monkeypatch):
    paths = [str(dataset.root / f"more-{i:02}.png") for i in range(96)]
    for i, path in enumerate(paths):
        noise(path, i, (8, 8))
    many = Dataset(
        class_names=("thing",),
        image_paths=paths,
        image_sizes=[(8, 8)] * 96,
        boxes=[],
        box_classes=[],
        box_images=[],
    )
    real = image_facts.opened

    def stop(path):
        if path == paths[90]:
            raise KeyboardInterrupt
        return real(path)

    monkeypatch.setattr(image_facts, "opened", stop)
    with pytest.raises(KeyboardInterrupt):
        audit(many, num_workers=1)
    monkeypatch.setattr(image_facts, "opened", real)
    decoded.clear()
    forget()
    audit(many)
    assert sorted(decoded) == [f"more-{i:02}.png" for i in range(64, 96)]


CHILD = """
import sys
from odkit.data import image_cache, image_facts
from odkit.data.audit import audit
from odkit.data.dataset import Dataset
image_cache.RACY = 0
print([f.message for f in audit(Dataset.load(sys.argv[1]))])
"""


def test_another_process_decodes_nothing_again(dataset, decoded, tmp_path):
    dataset.save(tmp_path / "dataset.npz")
    command = [sys.executable, "-c", CHILD, str(tmp_path / "dataset.npz")]
    with ThreadPoolExecutor(4) as pool:  # four at once, into one cache
        said = {done.stdout for done in pool.map(lambda _: subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=100), range(4))}  # fmt: skip
    assert said == {f"{[f.message for f in audit(dataset)]}\n"}
    assert decoded == []


def damage_all(path):
    path.write_bytes(b"this is no database" * 100)


def damage_inside(path):
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:5000])


def other_table(path):
    path.unlink()
    sqlite3.connect(path).execute("CREATE TABLE images (a)")


def another_thing(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [damage_all, damage_inside, cut, other_table, another_thing])
def test_a_damaged_cache_is_done_without(dataset, decoded, tmp_path, spoil):
    first = audit(dataset)
    decoded.clear()
    spoil(database(tmp_path))
    forget()
    assert audit(dataset).findings == first.findings
    assert len(decoded) == 11
    assert audit(dataset).findings == first.findings  # this process remembers
    assert len(decoded) == 11
    forget()
    audit(dataset)
    anew = spoil in (damage_all, damage_inside, cut)  # made anew, and good for the next process
    assert len(decoded) == (11 if anew else 22)


def test_a_cache_that_cannot_be_written_is_done_without(dataset, decoded, monkeypatch):
    monkeypatch.setenv("ODKIT_CACHE", "/dev/null/cache")
    first = audit(dataset)
    assert audit(dataset).findings == first.findings
    assert len(decoded) == 11
    forget()
    assert audit(dataset).findings == first.findings
    assert len(decoded) == 22


def test_a_cache_in_use_is_not_waited_for_long(dataset, decoded, tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, "WAIT", 0.1)
    first = audit(dataset)
    forget()
    holder = sqlite3.connect(database(tmp_path))
    holder.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    assert audit(dataset).findings == first.findings
    assert time.monotonic() - began < 2
    holder.close()
    assert len(decoded) == 22


def test_it_stays_small(dataset, decoded, tmp_path, monkeypatch):
    monkeypatch.setattr(image_cache, "MOST_IN_MEMORY", 3)
    monkeypatch.setattr(image_cache, "MOST_ON_DISK", 5)
    for _ in range(3):
        audit(dataset)
    assert len(image_cache._memory) == 3
    with sqlite3.connect(database(tmp_path)) as there:
        assert there.execute("SELECT count(*) FROM images").fetchone() == (5,)


def test_names_that_are_no_text(dataset, decoded):
    path = os.fsdecode(os.fsencode(dataset.root) + b"/\xff.jpg")
    noise(path, 1)
    odd = dataset.select([0]).replace(image_paths=[path], image_ids=["odd"])
    first = audit(odd)
    forget()
    assert audit(odd).findings == first.findings
    assert len(decoded) == 1


def test_threads_are_as_many_as_the_quota_gives_cores(dataset, decoded, tmp_path, monkeypatch):
    """In `docker run --cpus 1` on a large machine."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys").mkdir()
    (tmp_path / "sys/cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "sys")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    threads = []
    real = image_facts.ThreadPoolExecutor
    monkeypatch.setattr(
        image_facts, "ThreadPoolExecutor", lambda count: (threads.append(count), real(count))[1]
    )
    audit(dataset)
    image_facts.header_sizes(list(dataset.image_paths))
    assert set(threads) == {3}


def test_pictures_decoded_at_once_share_what_memory_there_is(dataset, decoded, monkeypatch):
    """Each waits until its pixels fit beside those of the others; one that never would is decoded alone."""
    now, most, lock = [0], [0], threading.Lock()
    real = image_facts.loaded

    def counted(image):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        try:
            return real(image)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(image_facts, "loaded", counted)
    monkeypatch.setattr(image_facts, "MEMORY_OF_THREAD", 0)
    for memory, at_once in ((1, 1), (2 * 40 * 30 * 5, 2)):
        forget()
        shutil.rmtree(os.environ["ODKIT_CACHE"], ignore_errors=True)
        monkeypatch.setattr(image_facts, "MEMORY", memory)
        most[0] = 0
        image_facts.inspect_images(dataset.image_paths.tolist(), decode=True, num_workers=6)
        assert 1 <= most[0] <= at_once


def test_an_interrupt_waits_for_no_more_than_the_image_at_hand(tmp_path, monkeypatch):
    """A thread has 32 images to look at; what is left of them is not looked at any more."""
    looked = []

    def work(path):
        looked.append(path)
        if path == "0":
            raise KeyboardInterrupt
        time.sleep(0.02)

    with pytest.raises(KeyboardInterrupt):
        image_facts.in_threads(work, [str(i) for i in range(320)], 4, "")
    assert len(looked) < 60
