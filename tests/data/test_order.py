import random

import numpy as np
import pytest

from attention_sampling.data.order import choose_images, image_order


@pytest.mark.parametrize("workers", [1, 2, 3, 10])
def test_parts_are_disjoint_and_everything_and_of_even_size(workers):
    parts = [choose_images(10, shard=(workers, number)) for number in range(workers)]
    assert sorted(np.concatenate(parts)) == list(range(10))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_no_seed_is_a_seed_from_python_s_random():
    def epochs():
        next_epoch = image_order(choose_images(50), shuffle=True)
        return [next_epoch().tolist() for _ in range(2)]

    random.seed(1)
    first, other = epochs(), epochs()
    random.seed(1)
    assert epochs() == first
    assert first != other


def test_without_shuffling_every_epoch_is_the_same():
    next_epoch = image_order(choose_images(5, [4, 0]))
    assert [next_epoch().tolist() for _ in range(2)] == [[4, 0], [4, 0]]


@pytest.mark.parametrize(
    ("indices", "shard", "message"),
    [
        ([], None, r"Received: indices of shape \(0,\)"),
        ([[1]], None, r"Received: indices of shape \(1, 1\), int64"),
        ([1.0], None, r"Received: indices of shape \(1,\), float64"),
        ([True, False], None, r"np.flatnonzero.*Received: .*bool"),
        ([-1, 2], None, "0 to 4. Received: indices from -1 to 2"),
        ([5], None, "0 to 4. Received: indices from 5 to 5"),
        (None, 2, "a pair.*Received: shard=2"),
        (None, (0, 0), r"Received: shard\[0\]=0"),
        (None, (2, -1), r"Received: shard\[1\]=-1"),
        (None, (2, 1.0), r"Received: shard\[1\]=1.0"),
        (None, (2, 2), r"Received: shard=\(2, 2\), 5 images"),
        ([3], (2, 0), r"each needs an image. Received: shard=\(2, 0\), 1 images"),
    ],
)
def test_refuses_images(indices, shard, message):
    with pytest.raises(ValueError, match=message):
        choose_images(5, indices, shard)


@pytest.mark.parametrize("seed", [-1, 0.5, True])
def test_refuses_a_seed(seed):
    with pytest.raises(ValueError, match=f"Received: seed={seed}"):
        image_order(choose_images(5), shuffle=True, seed=seed)
