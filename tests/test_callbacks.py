import keras
import numpy as np
import pytest
import reference
from keras import ops
from PIL import Image

from attention_sampling import LocalContrast, SampleSoftmax, attention_sampling
from attention_sampling.callbacks import attention_viewer, draw_attention


def model_of(**arguments):
    x_low = keras.Input((20, 30, 3))
    x_high = keras.Input((200, 300, 3), dtype="uint8")
    attention = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 100),
            keras.layers.Conv2D(1, 3, padding="same"),
            SampleSoftmax(True),
        ]
    )
    feature = keras.Sequential(
        [keras.Input((16, 24, 3)), keras.layers.GlobalAveragePooling2D()]
    )
    sample = attention_sampling(attention, feature, n_patches=4, seed=3, **arguments)
    features, _, _ = sample([x_low, x_high])
    return keras.Model([x_low, x_high], keras.layers.Dense(2)(features))


@pytest.mark.parametrize(
    "arguments", [{}, {"proposal": LocalContrast(5)}, {"predict_samples": 3}]
)
def test_viewer_shows_what_the_prediction_was_made_from(arguments, rng):
    model = model_of(**arguments)
    x_low = rng.uniform(0, 255, (2, 20, 30, 3)).astype("float32")
    x_high = rng.integers(0, 256, (2, 200, 300, 3), dtype=np.uint8)
    seen = attention_viewer(model).predict_on_batch([x_low, x_high])
    padded = np.pad(x_high, ((0, 0), (50, 50), (50, 50), (0, 0)))
    for sample in range(2):
        for patch, (row, column) in zip(
            seen["patches"][sample], seen["origins"][sample], strict=True
        ):
            window = padded[sample, row + 50 : row + 66, column + 50 : column + 74]
            np.testing.assert_array_equal(patch, window)
    assert set(np.ravel(seen["sampled_attention"])) <= set(np.ravel(seen["attention"]))
    # The prediction is the expectation of these very patches.
    means = seen["patches"].mean(axis=(2, 3))
    attention = seen["sampled_attention"]
    features = [
        np.mean(
            [
                reference.estimate_unordered(f[i : i + 4], a[i : i + 4])
                for i in range(0, len(a), 4)
            ],
            axis=0,
        )
        for f, a in zip(means, attention, strict=True)
    ]
    kernel, bias = map(ops.convert_to_numpy, model.layers[-1].weights)
    np.testing.assert_allclose(seen["prediction"], features @ kernel + bias, rtol=1e-4)


def test_viewer_needs_one_sampling_layer():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="plain")
    with pytest.raises(ValueError, match="Received: 0 SamplePatches layers in 'plain'"):
        attention_viewer(model)


@pytest.mark.parametrize(
    ("channels", "size", "more"),
    [
        (1, (200, 300), {}),
        (3, (200, 300), {}),
        (3, (20, 30), {"image_size": (200, 300)}),
    ],
)
def test_picture_shows_map_windows_and_patches(tmp_path, channels, size, more):
    attention = np.zeros((10, 15))
    attention[5, 7] = 1
    draw_attention(
        tmp_path / "picture.png",
        np.full((*size, channels), 128, np.uint8),
        attention,
        np.full((5, 16, 24, channels), 255, np.uint8),
        np.linspace(0.5, 0.1, 5),
        np.array([[90, 130], [0, 0], [-5, 290], [184, 276], [100, 20]]),
        margin=(5, 5),
        boxes=[(95, 140, 105, 150)],
        title="a title",
        **more,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    pixels = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")).astype(int)

    def count(red, green, blue):
        return (np.abs(pixels - [red, green, blue]).max(axis=-1) < 30).sum()

    assert count(0, 255, 255) > 200  # frames of the windows
    assert count(0, 255, 0) > 20  # the box to be found
    assert count(223, 223, 32) > 100  # the attended cell, over the grey image
