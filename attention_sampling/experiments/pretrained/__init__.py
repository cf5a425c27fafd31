"""Trained models that come with the package."""

from pathlib import Path
from typing import Any


def load_pretrained(name: str) -> Any:
    """Load a trained model that comes with the package.

    ``"speed_limits"`` reads the speed limit in a photograph of a road. It answers with the
    probability of each class: empty (a road without a limit), 30, 50, 70 and 80 km/h. It
    was trained on all 433 German road scenes of ``experiments real-scenes``, 1360 pixels
    wide, in which signs are 16 to 128 pixels wide: scale a photograph to this width first,
    as the example below does. ``examples/speed_limits.py --predict photo.jpg`` plots what
    the model looked at too.

    Input shape:
        ``[view, image]``: (batch, height / 4, width / 4, 3) of any float dtype, values
        from 0 to 255, each pixel the mean of 4 x 4 pixels of the image; and (batch, height,
        width, 3) uint8, RGB. Of any size.

    Output shape:
        (batch, 5) float32, probabilities of the classes in the order above, which is that
        of the ``class_names`` of the layer ``AttentionSampling`` in the model.

    The same photograph has the same answer each time: the patches that are looked at are
    those of most attention.

    Args:
        name: ``"speed_limits"``.

    Returns:
        A ``keras.Model``, not compiled.

    Raises:
        ValueError: there is no model of this name.

    Example::

        from attention_sampling.data.photographs import read_photograph

        model = load_pretrained("speed_limits")
        view, image = read_photograph("photo.jpg", (None, 1360))
        model.predict([view[None], image[None]])

    Reference:
        Katharopoulos and Fleuret 2019, section 4.4. Houben et al. 2013, *Detection of
        traffic signs in real-world images*.
    """
    files = {file.stem: file for file in Path(__file__).parent.glob("*.keras")}
    if name not in files:
        raise ValueError(
            "There is no trained model of this name. Expected: one of "
            f"{', '.join(sorted(files))}. Received: name={name!r}"
        )
    import keras  # here: whatever else is imported of the experiments needs none

    return keras.saving.load_model(files[name], compile=False)
