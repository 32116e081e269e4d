"""What looks the same is dealt to one side, everything else as if nothing did; and a still camera is no one group."""

import numpy as np
import pytest
from PIL import Image

from odkit.data.dataset import Dataset
from odkit.data.duplicates import near_duplicates


def scene(seed):
    """Soft blobs: something like a photograph."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((96, 72), Image.Resampling.BICUBIC)


def retaken(image, shift):
    """The next shot of a burst: a little to the side, in a little other light, in another file."""
    moved = image.transform(image.size, Image.Transform.AFFINE, (1, 0, shift / 4, 0, 1, 0))
    return moved.point(lambda value: value * 0.92 + shift)


def dataset_of(folder, scenes):
    """An image a number in `scenes`; equal numbers are one burst. A box an image, three classes by turns."""
    folder.mkdir(exist_ok=True)
    shots: dict[int, int] = {}
    for row, number in enumerate(scenes):
        shot = shots[number] = shots.get(number, -1) + 1
        retaken(scene(number), shot).save(folder / f"{row:03}.jpg", quality=92)
    count = len(scenes)
    return Dataset(
        root=folder,
        class_names=("a", "b", "c"),
        image_paths=[str(folder / f"{row:03}.jpg") for row in range(count)],
        image_sizes=[(96, 72)] * count,
        boxes=[(1, 1, 20, 20)] * count,
        box_classes=[row % 3 for row in range(count)],
        box_images=range(count),
    )


def without_files(dataset):
    """The same, but nothing is known of the images' looks."""
    return dataset.replace(image_paths=[f"{path}.gone" for path in dataset.image_paths])


BURSTS = [*range(40), 3, 3, 3, 17, 21, 21]  # 46 images, three bursts of 4, 2 and 3


@pytest.mark.parametrize("seed", range(6))
def test_a_burst_stands_on_one_side_and_the_rest_where_it_would_anyhow(tmp_path, seed):
    dataset = dataset_of(tmp_path, BURSTS)
    dealt = dataset.with_splits(val=0.25, test=0.2, seed=seed)
    folds = dataset.folds(4, seed=seed)
    for sides, blind in (
        (dealt.image_splits, without_files(dataset).with_splits(val=0.25, test=0.2, seed=seed).image_splits),
        (folds, without_files(dataset).folds(4, seed=seed)),
    ):
        for number in range(40):
            members = [row for row, other in enumerate(BURSTS) if other == number]
            assert len({sides[row] for row in members}) == 1
            if len({blind[row] for row in members}) == 1:  # nothing tore it: it stays where it was
                assert [sides[row] for row in members] == [blind[row] for row in members]
    assert dealt.notes[-1].endswith("; 3 groups of near-duplicates, each on one side")
    assert not any(pair.across_splits for pair in near_duplicates(dealt))
    assert dealt.fingerprint() == dataset.with_splits(val=0.25, test=0.2, seed=seed).fingerprint()


def test_many_bursts_leave_every_side_its_share(tmp_path):
    dealt = dataset_of(tmp_path, [row // 2 for row in range(80)]).with_splits(val=0.2, test=0.1)
    assert not any(pair.across_splits for pair in near_duplicates(dealt))
    counts = dealt.split_counts()
    assert 12 <= counts["val"] <= 20
    assert 6 <= counts["test"] <= 10
    assert dealt.split("val").class_counts().keys() == {"a", "b", "c"}
    assert min(dealt.split("val").class_counts().values()) >= 2


def test_a_still_camera_is_not_one_group(tmp_path):
    """Half of its pictures in val, or all of them in train, would be no split; the note says that they are cut."""
    dealt = dataset_of(tmp_path, [0] * 30 + list(range(1, 31))).with_splits(val=0.2)
    assert 8 <= dealt.split_counts()["val"] <= 16
    apart = [pair for pair in near_duplicates(dealt) if pair.across_splits]
    assert apart
    assert f"; {len(apart)} pairs of near-duplicates on two sides, because" in dealt.notes[-1]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_few_images_that_are_all_alike_are_dealt_all_the_same(tmp_path, count):
    dealt = dataset_of(tmp_path, [0] * count).with_splits(val=0.4)
    assert set(dealt.split_counts()) == {"train", "val"}


def test_images_that_cannot_be_read_resemble_nothing(tmp_path):
    dataset = dataset_of(tmp_path, [0, 0, 0, 0, 1, 2, 3, 4])
    (tmp_path / "001.jpg").unlink()
    (tmp_path / "002.jpg").write_bytes((tmp_path / "002.jpg").read_bytes()[:300])
    dealt = dataset.with_splits(val=0.4)
    assert dealt.image_splits[0] == dealt.image_splits[3]
    assert dealt.notes[-1].endswith("; 1 group of near-duplicates, each on one side")


def test_a_seed_deals_what_it_always_has():
    """Figures that were measured on a deal stay comparable."""
    count = 30
    dataset = Dataset(
        class_names=("a", "b", "c"),
        image_paths=[f"{row}.gone" for row in range(count)],
        image_sizes=[(96, 72)] * count,
        boxes=[(1, 1, 20, 20)] * count,
        box_classes=[row % 3 for row in range(count)],
        box_images=range(count),
    )
    dealt = dataset.with_splits(val=0.2, test=0.1, seed=5)
    assert "".join(split[-1] for split in dealt.image_splits) == "tnnnlnnnlnnnnttnnnlnnllnnnlnnn"
    folds = "".join(map(str, dataset.folds(4, seed=1)))
    assert folds == "201213310120323120012302033131"
