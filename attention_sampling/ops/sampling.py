"""Choosing cells of an attention map: sampled from it, or from a proposal, or the best."""

import functools
from typing import Any

import keras
from keras import ops

# Smallest value of the uniform draw: keeps its logarithm finite in float32.
_SMALLEST_UNIFORM = 1e-30
# keras.random.uniform returns multiples of 2**-23 in float32.
_UNIFORM_RESOLUTION = 2.0**-23
# Saliency of a cell without any, over the mean of all cells: a cell with attention can
# always be sampled, and its weight stays bounded.
_SMALLEST_SALIENCY = 0.01


def sample_cells(
    attention: Any, n_patches: int, replace: bool = False, seed: Any = None
) -> Any:
    """Sample cells of an attention map in proportion to their attention.

    Without replacement the cells come in sampling order: the second is sampled from
    what the first has left, and so on. A cell of zero attention is never sampled
    while one with attention is left. A cell whose attention is NaN is always sampled,
    so that a broken attention network shows as NaN in the loss.

    Args:
        attention: (batch, cells) float tensor, not negative. Need not sum to 1.
        n_patches: cells to sample for each sample. Without replacement at most
            ``cells``.
        replace: whether one cell may be sampled more than once.
        seed: an int or a ``keras.random.SeedGenerator``.

    Returns:
        (batch, n_patches) int32 tensor of flat cell indices.

    Example:

    >>> attention = keras.ops.array([[0.0, 0.5, 0.5, 0.0]])
    >>> cells = sample_cells(attention, n_patches=2, seed=0)
    >>> sorted(int(cell) for cell in cells[0])
    [1, 2]

    Reference:
        Katharopoulos and Fleuret 2019, eq. 4 (with replacement) and eq. 13 (without);
        the exponential clocks of the latter are those of Efraimidis and Spirakis 2006,
        *Weighted random sampling with a reservoir*, and, in logarithms, the Gumbel top-k
        trick, Kool et al. 2019 (arXiv 1903.06059), who set them in two steps too.
    """
    attention = ops.cast(attention, "float32")
    if replace:
        logits = ops.log(_drawable(attention))
        return ops.cast(keras.random.categorical(logits, n_patches, seed=seed), "int32")
    # Cell i rings first with probability a_i / sum(a) if its clock is an
    # exponential variate of rate a_i; the order of rings is the order of draws.
    n_cells = attention.shape[1]
    known = isinstance(n_cells, int)
    size = _block_size(n_cells, n_patches) if known else 1
    if size > 1:
        return _race_in_blocks(attention, n_patches, size, seed)
    batch, n_cells = ops.shape(attention)
    clocks = _sample_log_clocks(batch, n_cells, seed)
    _, cells = ops.top_k(_ring_keys(ops.log(attention), clocks), n_patches)
    return ops.cast(cells, "int32")


def top_cells(attention: Any, n_patches: int) -> Any:
    """Return the cells of most attention, the first of them first.

    Args:
        attention: (batch, cells) float tensor. NaN counts as the most.
        n_patches: cells to take of each sample, at most ``cells``.

    Returns:
        (batch, n_patches) int32 tensor of flat cell indices.

    Example:

    >>> attention = keras.ops.array([[0.1, 0.2, 0.7]])
    >>> [int(cell) for cell in top_cells(attention, n_patches=2)[0]]
    [2, 1]
    """
    attention = ops.cast(attention, "float32")
    keys = ops.where(ops.isnan(attention), float("inf"), attention)
    _, cells = ops.top_k(keys, n_patches)
    return ops.cast(cells, "int32")


def mix_proposal(attention: Any, saliency: Any, mix: Any) -> Any:
    """Propose cells by their attention and, in part, by their saliency too.

    ``(1 - mix) a + mix a (s + small) / sum(a (s + small))``, s the saliency over its mean.
    Estimators that take their weights from the proposal estimate the same as from the
    attention, value and gradient, with other noise.

    Args:
        attention: (batch, cells) float tensor that sums to 1.
        saliency: (batch, cells) float tensor on any scale. Negative counts as 0.
        mix: number or scalar tensor from 0, the attention alone, to 1.

    Returns:
        (batch, cells) tensor that sums to 1, constant for the gradient.

    Example:

    >>> attention = keras.ops.array([[0.5, 0.5]])
    >>> proposal = mix_proposal(attention, keras.ops.array([[0.0, 10.0]]), mix=0.5)
    >>> keras.ops.convert_to_numpy(proposal).round(3)
    array([[0.252, 0.748]], dtype=float32)
    """
    attention = ops.stop_gradient(attention)
    saliency = ops.maximum(ops.cast(ops.stop_gradient(saliency), attention.dtype), 0.0)
    mean = ops.mean(saliency, axis=1, keepdims=True)
    # Where nothing is salient, all cells are alike.
    saliency = saliency / ops.where(mean > 0, mean, 1.0)
    salient = attention * (saliency + _SMALLEST_SALIENCY)
    salient = salient / ops.sum(salient, axis=1, keepdims=True)
    mix = ops.cast(mix, attention.dtype)
    return (1.0 - mix) * attention + mix * salient


def _drawable(attention: Any) -> Any:
    """Return attention that can be sampled from: NaN cells alone where there are any,
    all cells alike where there is no attention.
    """
    nan = ops.isnan(attention)
    broken = ops.any(nan, axis=1, keepdims=True)
    attention = ops.where(broken, ops.cast(nan, "float32"), attention)
    empty = ops.all(attention == 0, axis=1, keepdims=True)
    return ops.where(empty, 1.0, attention)


def _race_in_blocks(attention: Any, n_patches: int, size: int, seed: Any) -> Any:
    """Sample as from a clock for each cell, and set those of few cells only.

    The first ring of a block is a clock of the rate of all its cells. The first n cells
    to ring are in the n blocks first to ring. No approximation is made.
    """
    batch, n_cells = ops.shape(attention)
    n_blocks, n_chosen = n_cells // size, n_patches * size
    # All clocks at once: many small operations cost more than the numbers.
    clocks = _sample_log_clocks(batch, n_blocks + 2 * n_chosen, seed)
    of_blocks, to_race, to_follow = ops.split(
        clocks, [n_blocks, n_blocks + n_chosen], axis=1
    )
    blocks = ops.reshape(attention, (-1, n_blocks, size))
    first, chosen = ops.top_k(
        _ring_keys(ops.log(ops.sum(blocks, axis=2)), of_blocks), n_patches
    )
    first, chosen = first[..., None], ops.cast(chosen, "int32")
    sample = ops.arange(batch, dtype="int32")[:, None]
    rates = ops.log(
        ops.take(ops.reshape(blocks, (-1, size)), sample * n_blocks + chosen, axis=0)
    )
    # Which cell of a block rings first does not depend on when: a race of its own.
    # Clocks have no memory: from that moment on the others run as if just set.
    race = _ring_keys(rates, ops.reshape(to_race, ops.shape(rates)))
    later = _ring_keys(rates, ops.reshape(to_follow, ops.shape(rates)))
    later = -ops.logaddexp(-first, -later)
    keys = ops.where(race == ops.max(race, axis=2, keepdims=True), first, later)
    _, best = ops.top_k(ops.reshape(keys, (-1, n_chosen)), n_patches)
    cells = chosen[..., None] * size + ops.arange(size, dtype="int32")
    return ops.take_along_axis(ops.reshape(cells, (-1, n_chosen)), best, axis=1)


@functools.lru_cache
def _block_size(n_cells: int, n_patches: int) -> int:
    """Return the cells of a block with which the fewest clocks are set.

    It divides ``n_cells``, for a cell of padding could be sampled where no attention is
    left, and makes ``n_patches`` blocks at least. 1 is every cell on its own.
    """

    def clocks(size: int) -> int:
        # One for each block, then two for each cell of the blocks that are chosen.
        return n_cells // size + 2 * n_patches * size if size > 1 else n_cells

    sizes = [size for size in range(1, n_cells // n_patches + 1) if n_cells % size == 0]
    return min(sizes, key=clocks, default=1)


def _ring_keys(log_rates: Any, log_clocks: Any) -> Any:
    """Return minus the logarithm of when clocks ring that run at these rates.

    The largest key rings first. It is infinite for a NaN, minus infinite for a rate of 0.
    """
    keys = log_rates - log_clocks
    return ops.where(ops.isnan(keys), float("inf"), keys)


def _sample_log_clocks(batch: Any, count: Any, seed: Any) -> Any:
    """Sample logarithms of unit exponential variates, (batch, count), all of them finite.

    The first of many clocks rings near 0, where one float32 uniform has steps of
    2**-23: among a million equal cells the winners would tie and the tie go to the
    first cell. A second uniform fills the steps.
    """
    draws = keras.random.uniform((2, batch, count), dtype="float32", seed=seed)
    uniform = draws[0] + _UNIFORM_RESOLUTION * draws[1]
    # Below 1 - 2**-24, the largest float32 under 1: log1p(-1) is infinite.
    uniform = ops.clip(uniform, _SMALLEST_UNIFORM, 1.0 - 2.0**-24)
    return ops.log(-ops.log1p(-uniform))
