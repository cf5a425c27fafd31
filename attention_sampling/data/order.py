"""Which images of a source a data set goes through, and in which order."""

import random
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from attention_sampling.checks import check_count

Numbers = npt.NDArray[np.int32]


def choose_images(
    count: int,
    indices: npt.ArrayLike | None = None,
    shard: tuple[int, int] | None = None,
) -> Numbers:
    """Return the numbers of the images of a subset, or of one worker's part of it.

    The parts of all workers are together everything; sizes differ by one at most.

    Example:

    >>> choose_images(5, shard=(2, 1)).tolist()
    [1, 3]
    """
    chosen = np.arange(count) if indices is None else np.asarray(indices)
    if chosen.ndim != 1 or not chosen.size or chosen.dtype.kind not in "iu":
        raise ValueError(
            "`indices` must be integers, the numbers of one image or more, of shape "
            "(chosen,); of a mask, np.flatnonzero gives them. Received: indices of "
            f"shape {chosen.shape}, {chosen.dtype}"
        )
    if chosen.min() < 0 or chosen.max() >= count:
        raise ValueError(
            f"`indices` must be numbers of images, 0 to {count - 1}. Received: "
            f"indices from {chosen.min()} to {chosen.max()}"
        )
    if shard is None:
        return chosen.astype("int32")
    if not isinstance(shard, tuple | list) or len(shard) != 2:
        raise ValueError(
            "`shard` must be a pair: how many workers there are, and the number of this "
            f"one. Received: shard={shard!r}"
        )
    workers = check_count("shard[0]", shard[0], smallest=1)
    worker = check_count("shard[1]", shard[1], smallest=0)
    if worker >= workers or workers > len(chosen):
        raise ValueError(
            "Workers are numbered from 0, and each needs an image. Received: "
            f"shard={(workers, worker)}, {len(chosen)} images"
        )
    return chosen[worker::workers].astype("int32")


def image_order(
    numbers: Numbers, shuffle: bool = False, seed: int | None = None
) -> Callable[[], Numbers]:
    """Return what gives the order of one epoch after the other.

    Without a seed it is one of Python's ``random``, as ``keras.utils.set_random_seed``
    sets it.

    Example:

    >>> next_epoch = image_order(np.arange(4, dtype="int32"), shuffle=True, seed=0)
    >>> next_epoch().tolist(), next_epoch().tolist()
    ([2, 0, 1, 3], [3, 2, 1, 0])
    """
    if not shuffle:
        return lambda: numbers
    if seed is None:
        seed = random.randrange(2**32)
    generator = np.random.default_rng(check_count("seed", seed, smallest=0))
    return lambda: generator.permutation(numbers)
