"""Color contrast of a view: where small things stand out by their color."""

import keras
from keras import ops

from attention_sampling.checks import check_count, check_images
from attention_sampling.ops.geometry import means_around

# The surround of a pixel is so many times as high and wide as the center.
_SURROUND = 3
# Fraction of white that is added to the intensity: dark pixels have no certain color.
_DARK = 0.1


@keras.saving.register_keras_serializable(package="attention_sampling")
class ColorContrast(keras.layers.Layer):
    """Difference in color between each pixel of a view and what is around it.

    A saliency for photographs: ``attention_sampling(proposal=ColorContrast())``. Leaves,
    fences and edges have as much ``LocalContrast`` as a traffic sign; a small colored thing
    stands out in the opponent channels red against green and blue against yellow, of which
    each is divided by the intensity. It has no weights.

    Args:
        windows: heights and widths of the centers, in pixels of the view: about half the
            size of what is looked for. The mean over all of them is taken.
        white: value of a white pixel in the view.
        power: exponent of the saliency: a larger one concentrates it.

    Input shape:
        (batch, height, width, 3), RGB of any float or integer dtype.

    Output shape:
        (batch, height, width), float32 at least. At the border, pixels outside count as
        the nearest inside.

    Raises:
        ValueError: no windows, or one that is not positive; ``white`` or ``power`` not
            positive; the input is no batch of RGB images.

    Example:

    >>> views = keras.ops.zeros((1, 20, 30, 3))
    >>> tuple(ColorContrast()(views).shape)
    (1, 20, 30)

    Reference:
        Itti, Koch and Niebur 1998, A model of saliency-based visual attention for rapid
        scene analysis.
    """

    def __init__(self, windows=(1, 3), *, white=255.0, power=2.0, **kwargs):
        super().__init__(autocast=False, **kwargs)
        windows = [windows] if isinstance(windows, int) else list(windows)
        self.windows = [check_count("windows", window, 1) for window in windows]
        if not self.windows or not white > 0 or not power > 0:
            raise ValueError(
                "`windows` must not be empty, `white` and `power` must be positive. "
                f"Received: windows={windows}, white={white}, power={power}"
            )
        self.white, self.power = float(white), float(power)

    def call(self, inputs):
        self.compute_output_shape(inputs.shape)
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        red, green, blue = ops.split(ops.cast(inputs, dtype) / self.white, 3, axis=-1)
        yellow = (red + green) / 2
        colors = ops.concatenate([red - green, blue - yellow], axis=-1)
        colors = colors / ((2 * yellow + blue) / 3 + _DARK)
        contrast = 0.0
        for window in self.windows:
            center = means_around(colors, (window, window))
            around = means_around(colors, (_SURROUND * window, _SURROUND * window))
            square = ops.sum(ops.square(center - around), axis=-1)
            # The gradient of the root is infinite at 0: of a constant view it is 0.
            differs = square > 0
            root = ops.sqrt(ops.where(differs, square, 1.0))
            contrast += ops.where(differs, root, 0.0)
        return (contrast / len(self.windows)) ** self.power

    def compute_output_spec(self, inputs):
        dtype = keras.backend.result_type(inputs.dtype, "float32")
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=dtype)

    def compute_output_shape(self, input_shape):
        check_images("inputs", tuple(input_shape))
        if input_shape[3] != 3:
            raise ValueError(
                "Color contrast is of RGB images, (batch, height, width, 3). Received: "
                f"inputs.shape={tuple(input_shape)}"
            )
        return tuple(input_shape[:3])

    def get_config(self):
        return {
            **super().get_config(),
            "windows": self.windows,
            "white": self.white,
            "power": self.power,
        }
