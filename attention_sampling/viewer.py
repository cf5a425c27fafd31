"""What a model looked at, as arrays."""

from typing import Any

import keras
import numpy as np

from attention_sampling.baselines import AttentionPooling, ExtractGrid
from attention_sampling.layers import SamplePatches, SampleSoftmax
from attention_sampling.windows import window_origins_by_image

# Of what is added to a model. An automatic one may be in a loaded model already.
_NAME = "attention_of_viewer"


def attention_viewer(model: keras.Model) -> keras.Model:
    """Build a model that shows what another looked at, from the same draws.

    Args:
        model: functional model that holds one ``SamplePatches`` layer with
            ``return_origins=True``, as ``attention_sampling()`` makes it, or one
            ``ExtractGrid`` and one ``AttentionPooling``, as ``deep_mil()`` does.

    Returns:
        Model from the inputs of ``model`` to a dict: ``prediction`` (the output of
        ``model``), ``attention`` (batch, rows, columns), and with attention sampling
        ``patches`` (batch, n_patches, patch_height, patch_width, channels),
        ``sampled_attention`` (batch, n_patches) and ``origins`` (batch, n_patches, 2).

    Raises:
        ValueError: no such layer, or several.
    """
    layers = [layer for layer in model.layers if isinstance(layer, SamplePatches)]
    grids, pools = (
        [layer for layer in model.layers if isinstance(layer, kind)]
        for kind in (ExtractGrid, AttentionPooling)
    )
    if not layers and len(grids) == len(pools) == 1:
        attention = keras.layers.Reshape(grids[0].grid_size, name=_NAME)(
            pools[0].output[1]
        )
        return keras.Model(
            model.inputs, {"prediction": model.output, "attention": attention}
        )
    if len(layers) != 1 or not layers[0].return_origins:
        raise ValueError(
            "Pictures need a functional model with one SamplePatches layer that returns "
            "its origins, as attention_sampling() makes it, or the layers of "
            "deep_mil(). "
            f"Received: {len(layers)} SamplePatches layers in {model.name!r}"
        )
    patches, sampled_attention, *_, origins = layers[0].output
    attention = layers[0].input[2]
    if layers[0].use_logits:
        attention = SampleSoftmax(name=_NAME)(attention)
    return keras.Model(
        model.inputs,
        {
            "prediction": model.output,
            "attention": attention,
            "patches": patches,
            "sampled_attention": sampled_attention,
            "origins": origins,
        },
    )


def weigh_patches(
    image: Any,
    attention: Any,
    patch_size: tuple[int, int],
    view_size: tuple[int, int] | None = None,
    receptive_field: int = 0,
) -> np.ndarray:
    """Multiply every patch of an image by its attention, from 0 to 1.

    The weights are w = (a - min a) / (max a - min a), or 1 where all are alike. Patches
    overlap: a pixel takes the largest weight of those that show it.

    Args:
        image: (height, width, 1 or 3), the full-resolution image: uint8, uint16, or
            floats from 0 to 1.
        attention: (rows, columns) attention map, of attention sampling or of Deep MIL.
        patch_size: (height, width) of the patches, in pixels.
        view_size: (height, width) of the view, in its pixels; needed for a receptive
            field only.
        receptive_field: as of ``attention_sampling()``.

    Returns:
        (height, width, 3) floats from 0 to 1.

    Example:

    >>> attention = np.array([[0.7, 0.1], [0.1, 0.1]])
    >>> weigh_patches(np.ones((4, 4, 1)), attention, (2, 2))[..., 0]
    array([[1., 1., 0., 0.],
           [1., 1., 0., 0.],
           [0., 0., 0., 0.],
           [0., 0., 0., 0.]])

    Reference:
        Katharopoulos and Fleuret 2019, section 4.3.2 and figure 4.
    """
    image, attention = displayable(image), np.asarray(attention, "float64")
    size = image.shape[:2]
    spread = attention.max() - attention.min()
    weights = np.ones(attention.size)
    if spread > 0:
        weights = np.ravel(attention - attention.min()) / spread
    [origins] = window_origins_by_image(
        np.arange(attention.size)[None],
        attention.shape,
        view_size or size,
        np.array([size]),
        patch_size,
        receptive_field,
    )
    of_pixel = np.zeros(size)
    ends = np.clip(origins + patch_size, 0, size)
    for weight, (top, left), (bottom, right) in zip(
        weights, np.clip(origins, 0, None), ends, strict=True
    ):
        window = of_pixel[top:bottom, left:right]
        np.maximum(window, weight, out=window)
    return image * of_pixel[..., None]


def displayable(image: Any) -> Any:
    """Return (height, width, 3) floats from 0 to 1 of an image of 1 or 3 channels."""
    image = np.asarray(image)
    if np.issubdtype(image.dtype, np.integer):
        image = image / np.iinfo(image.dtype).max
    if image.shape[-1] == 1:
        image = np.repeat(image, 3, axis=-1)
    return np.clip(image, 0, 1)
