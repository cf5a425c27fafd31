"""Deep MIL: the features of every patch of a grid, pooled by attention."""

from collections.abc import Callable
from typing import Any

from keras import ops

from attention_sampling.experiments.baselines.attention_pooling import AttentionPooling
from attention_sampling.experiments.baselines.extract_grid import ExtractGrid
from attention_sampling.ops.patches import fold_patches


def deep_mil(
    feature: Callable[[Any], Any],
    patch_size: int | tuple[int, int],
    grid_size: int | tuple[int, int],
    units: int = 128,
    gated: bool = False,
) -> Callable[[Any], list[Any]]:
    """Stack the patches of a grid, a feature network and attention pooling.

    The baseline that looks at everything in full resolution, in time and memory that
    grow with the image. For a functional model: layers are made once, at this call.

    Args:
        feature: layer, model or callable from patches (any batch, patch_height,
            patch_width, channels) to features (any batch, dim), that of attention
            sampling. Integer pixels reach it as floats of the same values.
        patch_size: height and width of the patches in pixels, one int or two.
        grid_size: rows and columns of patches, one int or two.
        units: dimension of the hidden layer of the attention.
        gated: use the gated attention.

    Returns:
        Callable from images (batch, height, width, channels) to ``[features, attention,
        patches]``: the pooled feature (batch, dim), not normalized again, the attention
        map (batch, rows, columns), and the patches (batch, rows x columns,
        patch_height, patch_width, channels) in the dtype of the images.

    Raises:
        ValueError: arguments or shapes that ``ExtractGrid`` or ``AttentionPooling``
            refuse.

    Example:

    >>> feature = keras.Sequential(
    ...     [keras.Input((27, 27, 3)), keras.layers.GlobalAveragePooling2D()]
    ... )
    >>> images = keras.Input((500, 500, 3), dtype="uint8")
    >>> features, attention, patches = deep_mil(feature, 27, (50, 50))(images)
    >>> features.shape, attention.shape, patches.shape
    ((None, 3), (None, 50, 50), (None, 2500, 27, 27, 3))

    Reference:
        Ilse et al. 2018, *Attention-based deep multiple instance learning*; the
        baseline of Katharopoulos and Fleuret 2019, section 4.1.1.
    """
    extract = ExtractGrid(patch_size, grid_size)
    pool = AttentionPooling(units, gated)
    rows, columns = extract.grid_size

    def apply(images: Any) -> list[Any]:
        patches = extract(images)
        features = feature(fold_patches(patches))
        features = ops.reshape(features, (-1, rows * columns, features.shape[-1]))
        pooled, attention = pool(features)
        return [pooled, ops.reshape(attention, (-1, rows, columns)), patches]

    return apply
