"""The paper's figures: attention of Deep MIL, and images times their attention."""

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from attention_sampling.experiments import figures
from attention_sampling.experiments.baselines import deep_mil
from attention_sampling.experiments.tasks import TASKS, build_model
from attention_sampling.ops.geometry import window_origins


def test_the_attention_of_deep_mil_is_that_of_its_prediction(rng):
    image = keras.Input((40, 60, 3), dtype="uint8")
    feature = keras.Sequential(
        [keras.Input((16, 24, 3)), keras.layers.GlobalAveragePooling2D()]
    )
    features, attention, _ = deep_mil(feature, (16, 24), (2, 3))(image)
    model = keras.Model(image, features)
    images = rng.integers(256, size=(3, 40, 60, 3), dtype="uint8")
    seen = figures.explain(model, images, batch_size=2)
    expected = keras.Model(image, [features, attention])(images)
    for name, values in zip(("prediction", "attention"), expected, strict=True):
        np.testing.assert_allclose(seen[name], ops.convert_to_numpy(values), rtol=1e-4)
    assert seen.keys() == {"prediction", "attention"}


def test_attention_sampling_is_explained_by_its_patches(rng):
    task = TASKS["colon_cancer"].resized((60, 60), (12, 12))
    inputs = [
        rng.uniform(0, 255, (2, 12, 12, 3)).astype("float32"),
        rng.integers(256, size=(2, 60, 60, 3), dtype="uint8"),
    ]
    seen = figures.explain(build_model(task, "ats-3"), inputs)
    assert seen["attention"].shape == (2, 12, 12)
    assert seen["patches"].shape == (2, 3, 27, 27, 3)


@pytest.mark.parametrize(("view_size", "receptive_field"), [(None, 0), ((13, 17), 5)])
def test_a_pixel_has_the_largest_weight_of_its_patches(view_size, receptive_field, rng):
    image = np.full((52, 68, 1), 255, "uint8")
    attention = rng.uniform(size=(4, 6))
    weighted = figures.weigh_patches(
        image, attention, (24, 18), view_size, receptive_field
    )
    origins = window_origins(
        ops.arange(24)[None],
        (4, 6),
        view_size or (52, 68),
        (52, 68),
        (24, 18),
        receptive_field,
    )
    weights = (attention - attention.min()) / (attention.max() - attention.min())
    expected = np.zeros((52, 68))
    for weight, (top, left) in zip(weights.ravel(), np.array(origins)[0], strict=True):
        for row in range(max(0, top), min(52, top + 24)):
            for column in range(max(0, left), min(68, left + 18)):
                expected[row, column] = max(expected[row, column], weight)
    np.testing.assert_allclose(weighted[..., 0], 255 * expected, atol=0.51)


def test_where_all_attention_is_alike_the_image_stays(rng):
    image = rng.integers(256, size=(12, 12, 3), dtype="uint8")
    weighted = figures.weigh_patches(image, np.full((3, 3), 1 / 9), (4, 4))
    np.testing.assert_array_equal(weighted, image)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_shows_the_truth_beside_weighted_patches(tmp_path, channels):
    path = tmp_path / "picture.png"
    image, weighted = (
        np.full((80, 120, channels), grey, "uint8") for grey in (128, 64)
    )
    boxes = {"boxes": [(20, 40, 40, 80)], "points": [(60, 20)]}
    figures.plot_weighted_patches(path, image, weighted, title="it", **boxes)
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("RGB")).astype(int)
    lime = np.argwhere(np.abs(pixels - [0, 255, 0]).max(axis=-1) < 30)
    assert len(lime) > 200
    width = pixels.shape[1]
    assert lime[:, 1].max() < width / 2
    middle = pixels[pixels.shape[0] // 2]
    assert (middle[round(0.1 * width)] == 128).all()
    assert (middle[round(0.75 * width)] == 64).all()
