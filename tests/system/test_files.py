"""Files are written whole or not at all, whatever happens meanwhile, and are on the disk when the writer returns."""

import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from odkit.data.dataset import Dataset
from odkit.data.demo import write_demo
from odkit.data.formats import convert
from odkit.data.predictions import Predictions
from odkit.system import files
from odkit.system.files import cache_folder, replacing, write_file

OLD, NEW = b"old", b"n" * 3_000_000


@pytest.fixture
def synced(monkeypatch):
    """The paths that were fsynced so far, as they were called at that moment."""
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda fd: (seen.append(Path(os.readlink(f"/proc/self/fd/{fd}"))), fsync(fd))[1]
    )
    return seen


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_its_folder_are_on_the_disk(tmp_path, synced):
    path = tmp_path / "a.json"
    path.write_bytes(OLD)
    write_file(path, NEW)
    assert path.read_bytes() == NEW
    file, folder = synced
    assert file.parent == folder == tmp_path
    assert (file.name.startswith("a.json."), file.suffix) == (True, ".tmp")  # before it is renamed
    assert names(tmp_path) == ["a.json"]


def test_the_columns_are_on_the_disk(tmp_path, synced):
    dataset = Dataset(
        class_names=("a",),
        image_paths=["a.jpg"],
        image_sizes=[(4, 3)],
        boxes=[],
        box_classes=[],
        box_images=[],
    )
    dataset.save(tmp_path / "dataset.npz")
    found = Predictions.from_images([((), (), ())], ("a",), ("a.jpg",))
    found.save(tmp_path / "predictions.npz")
    assert [path.name.split(".")[0] for path in synced if path != tmp_path] == ["dataset", "predictions"]
    assert synced.count(tmp_path) == 2
    assert Dataset.load(tmp_path / "dataset.npz").fingerprint() == dataset.fingerprint()
    assert Predictions.load(tmp_path / "predictions.npz").image_ids == ("a.jpg",)


KILLED = """
import os, signal, sys
from odkit.system.files import replacing
with replacing(sys.argv[1]) as file:
    file.write(b"n" * 3_000_000)
    file.flush()
    {end}
"""


def test_a_process_that_is_killed_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(OLD)
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    end = subprocess.run([sys.executable, "-c", KILLED.format(end=kill), path], timeout=60)
    assert end.returncode == -signal.SIGKILL
    assert path.read_bytes() == OLD
    left = [name for name in names(tmp_path) if name != "a.bin"]
    assert len(left) == 1  # nobody is there to remove it
    assert left[0].endswith(".tmp")
    write_file(path, NEW)  # and it is in nobody's way
    assert path.read_bytes() == NEW


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path, signal_):
    path = tmp_path / "a.bin"
    path.write_bytes(OLD)
    end = f"""
    def stop(*_): raise KeyboardInterrupt
    signal.signal({signal_:d}, stop)
    os.kill(os.getpid(), {signal_:d})
    """
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(end=end), path], capture_output=True, timeout=60
    )
    assert b"KeyboardInterrupt" in done.stderr
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["a.bin"]


@pytest.fixture(params=["disk", "limit"])
def full(tmp_path, request):
    """A folder whose files can have a megabyte: on a small disk, where we may make one, and by a limit."""
    folder = tmp_path / "full"
    folder.mkdir()
    if request.param == "disk":
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no right to mount a small disk; the limit stands for it")
        yield folder
        subprocess.run(["umount", folder], check=True)
        return
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    yield folder
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(full):
    path = full / "a.bin"
    path.write_bytes(OLD)
    with pytest.raises(OSError, match=r"a\.bin") as raised:
        write_file(path, NEW)
    assert raised.value.filename == str(path)
    with pytest.raises(OSError, match=r"a\.bin"), replacing(path) as file:
        file.writelines(b"n" * 10_007 for _ in range(300))  # the last stay in memory until the file is closed
    many = Dataset(
        class_names=("a",),
        image_paths=[f"{i}-{os.urandom(8).hex()}.jpg" for i in range(60_000)],
        image_sizes=[(4, 3)] * 60_000,
        boxes=[],
        box_classes=[],
        box_images=[],
    )
    with pytest.raises(OSError, match=r"a\.bin"):
        many.save(path)
    assert path.read_bytes() == OLD
    assert names(full) == ["a.bin"]


def test_errors_name_the_file_or_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        write_file(tmp_path / "gone" / "a.bin", NEW)
    assert raised.value.filename == str(tmp_path / "gone" / "a.bin")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").touch()
    with pytest.raises(OSError, match="folder"):
        write_file(tmp_path / "folder", NEW)
    with pytest.raises(FileNotFoundError, match="elsewhere"), replacing(tmp_path / "a.bin"):
        Path("/elsewhere").read_bytes()
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.bin") as file:
        file.write(bytes(1 // 0))
    assert names(tmp_path) == ["folder"]


def test_permissions_are_those_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "a", OLD)
        write_file(tmp_path / "secret", OLD, mode=0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_links_stay_and_long_names_fit(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/a")
    write_file(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "a").read_bytes() == NEW
    write_file(tmp_path / ("ü" * 120), NEW)  # 240 bytes of the 255 that a name may have
    assert len(names(tmp_path)) == 3


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    def refuse(fd):
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    write_file(tmp_path / "a", NEW)
    assert (tmp_path / "a").read_bytes() == NEW


def test_the_cache_folder_is_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("ODKIT_CACHE", str(tmp_path / "named"))
    assert cache_folder() == tmp_path / "named"
    monkeypatch.delenv("ODKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_folder() == tmp_path / "caches" / "odkit"
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    assert cache_folder() == tmp_path / f"odkit-{os.getuid()}"
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    (tmp_path / "odkit-4321").mkdir()  # another's, who was there first
    other = cache_folder()
    assert other.parent == tmp_path
    assert other != tmp_path / "odkit-4321"


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_a_written_dataset_is_on_the_disk(tmp_path, synced, form):
    write_demo(tmp_path / "demo", images=3)
    drawn = list(synced)
    synced.clear()
    convert(tmp_path / "demo", tmp_path / "there", to=form)
    for folder, places in (("demo", drawn), ("there", synced)):
        # files are synced where they are made: in a folder of another name beside it
        made = {path.relative_to(tmp_path).parts[1:] for path in places if path.is_relative_to(tmp_path)}
        there = {path.relative_to(tmp_path / folder).parts for path in (tmp_path / folder).rglob("*")}
        assert there <= made
        assert places[-1] == tmp_path  # and their folder's new name is the last of it
