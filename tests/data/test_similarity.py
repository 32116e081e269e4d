"""The pairs that look the same are those that comparing each with each finds; a still camera's are not all listed."""

import numpy as np
import pytest

from odkit.data.similarity import MOST_LIKE, similar_pairs


def pictures(count, seed=0):
    """Thumbnails with soft shapes, [count, 32, 32], grey levels of 255."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 8, 8))
    return np.kron(coarse, np.ones((4, 4)))


def disturbed(picture, strength, seed):
    noise = np.random.default_rng(seed).normal(0, strength, picture.shape)
    return picture + np.kron(noise[::4, ::4], np.ones((4, 4)))


def looks_of(grey):
    return [one.clip(0, 255).astype(np.uint8).tobytes() for one in grey]


def each_with_each(looks, similarity):
    """The oracle: hash and correlation of every pair."""
    grey = np.stack([np.frombuffer(look, np.uint8) for look in looks]).astype(np.float64)
    blocks = grey.reshape(-1, 16, 2, 16, 2).sum((2, 4))
    bits = (np.diff(blocks, axis=2) > 0).reshape(len(grey), -1)
    likeness = np.corrcoef(grey)
    return {
        (i, k): pytest.approx(likeness[i, k])
        for i in range(len(grey))
        for k in range(i + 1, len(grey))
        if likeness[i, k] >= similarity and (bits[i] != bits[k]).sum() <= 45
    }


@pytest.mark.parametrize("in_a_block", [1, 8, 512])
@pytest.mark.parametrize("similarity", [0.8, 0.95, 0.99])
def test_as_when_each_is_compared_with_each(similarity, in_a_block, monkeypatch):
    monkeypatch.setattr("odkit.data.similarity._IN_A_BLOCK", in_a_block)
    first = pictures(60)
    grey = [*first, *(disturbed(p, strength, 100 + strength) for strength, p in enumerate(first))]
    looks = looks_of(grey)
    found = similar_pairs(looks, similarity)
    pairs = dict(
        zip(
            zip(found.first.tolist(), found.second.tolist(), strict=True),
            found.similarity.tolist(),
            strict=True,
        )
    )
    expected = each_with_each(looks, similarity)
    assert 5 < len(expected) < 60
    assert pairs == expected


def test_nothing_to_compare():
    flat = np.full((32, 32), 120.0)
    for looks in ([], [b""], [b"", b""], looks_of([flat, flat]), [*looks_of(pictures(1)), b""]):
        assert len(similar_pairs(looks).first) == 0


def test_rows_are_those_of_the_images_given():
    one, other = looks_of(pictures(2))
    found = similar_pairs([b"", one, b"", other, one])
    assert (found.first.tolist(), found.second.tolist(), found.similarity.tolist()) == ([1], [4], [1.0])


def test_a_still_camera_is_not_listed_with_all_its_pictures():
    still = pictures(1)[0]
    count = 3 * MOST_LIKE
    found = similar_pairs(looks_of([disturbed(still, 1, seed) for seed in range(count)]))
    assert np.bincount(found.first).max() == MOST_LIKE
    assert len(found.first) == sum(min(MOST_LIKE, count - 1 - row) for row in range(count))
