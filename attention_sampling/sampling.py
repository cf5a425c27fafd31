"""Drawing cells from an attention map."""

from typing import Any

import keras
from keras import ops

# Smallest value of the uniform draw: keeps its logarithm finite in float32.
_SMALLEST_UNIFORM = 1e-30
# keras.random.uniform returns multiples of 2**-23 in float32.
_UNIFORM_RESOLUTION = 2.0**-23


def draw_cells(
    attention: Any, n_patches: int, replace: bool = False, seed: Any = None
) -> Any:
    """Draw cells of an attention map in proportion to their attention.

    Without replacement the cells come in drawing order: the second is drawn from
    what the first has left, and so on. A cell of zero attention is never drawn
    while one with attention is left. A cell whose attention is NaN is always drawn,
    so that a broken attention network shows as NaN in the loss.

    Args:
        attention: (batch, cells) float tensor, not negative. Need not sum to 1.
        n_patches: cells to draw for each sample. Without replacement at most
            ``cells``.
        replace: whether one cell may be drawn more than once.
        seed: an int or a ``keras.random.SeedGenerator``.

    Returns:
        (batch, n_patches) int32 tensor of flat cell indices.

    Example:

    >>> attention = keras.ops.array([[0.0, 0.5, 0.5, 0.0]])
    >>> cells = draw_cells(attention, n_patches=2, seed=0)
    >>> sorted(int(cell) for cell in cells[0])
    [1, 2]

    Reference:
        Katharopoulos and Fleuret 2019, eq. 4 (with replacement) and eq. 13 (without);
        the exponential clocks of the latter are the Gumbel top-k trick,
        Kool et al. 2019 (arXiv 1903.06059).
    """
    attention = ops.cast(attention, "float32")
    if replace:
        logits = ops.log(_drawable(attention))
        return ops.cast(keras.random.categorical(logits, n_patches, seed=seed), "int32")
    if isinstance(seed, int):
        # Two draws from one int would be the same numbers twice.
        seed = keras.random.SeedGenerator(seed)
    # Cell i rings first with probability a_i / sum(a) if its clock is an
    # exponential variate of rate a_i; the order of rings is the order of draws.
    shape = ops.shape(attention)
    keys = ops.log(attention) - ops.log(_exponential(shape, seed))
    keys = ops.where(ops.isnan(keys), float("inf"), keys)
    _, cells = ops.top_k(keys, n_patches)
    return ops.cast(cells, "int32")


def _drawable(attention: Any) -> Any:
    """Return attention that can be drawn from: NaN cells alone where there are any,
    all cells alike where there is no attention.
    """
    nan = ops.isnan(attention)
    broken = ops.any(nan, axis=1, keepdims=True)
    attention = ops.where(broken, ops.cast(nan, "float32"), attention)
    empty = ops.all(attention == 0, axis=1, keepdims=True)
    return ops.where(empty, 1.0, attention)


def _exponential(shape: Any, seed: Any) -> Any:
    """Draw unit exponential variates, precise near 0, finite and positive.

    The first of many clocks rings near 0, where one float32 uniform has steps of
    2**-23: among a million equal cells the winners would tie and the tie go to the
    first cell. A second uniform fills the steps.
    """
    coarse = keras.random.uniform(shape, dtype="float32", seed=seed)
    fine = keras.random.uniform(shape, dtype="float32", seed=seed)
    uniform = coarse + _UNIFORM_RESOLUTION * fine
    # Below 1 - 2**-24, the largest float32 under 1: log1p(-1) is infinite.
    uniform = ops.clip(uniform, _SMALLEST_UNIFORM, 1.0 - 2.0**-24)
    return -ops.log1p(-uniform)
