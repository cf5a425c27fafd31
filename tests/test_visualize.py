import keras
import numpy as np
import pytest
import reference
from keras import ops
from PIL import Image

from attention_sampling import (
    LocalContrast,
    SamplePatches,
    SampleSoftmax,
    attention_sampling,
)
from attention_sampling.experiments.baselines import deep_mil
from attention_sampling.experiments.figures import (
    deep_mil_viewer,
    draw_weighted_patches,
    weigh_patches,
)
from attention_sampling.ops.geometry import window_origins
from attention_sampling.visualize import attention_viewer, draw_attention, is_ours


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


def test_viewer_shows_probabilities_where_the_network_gives_scores(rng):
    x_low, x_high = keras.Input((8, 9, 1)), keras.Input((80, 90, 1), dtype="uint8")
    scores = keras.layers.Conv2D(1, 3, padding="same")(x_low)
    patches, *_ = SamplePatches(4, 5, use_logits=True, return_origins=True)(
        [x_low, x_high, keras.layers.Reshape((8, 9))(scores)]
    )
    model = keras.Model([x_low, x_high], patches)
    views = rng.normal(size=(2, 8, 9, 1)).astype("float32")
    images = np.zeros((2, 80, 90, 1), "uint8")
    seen = attention_viewer(model).predict_on_batch([views, images])
    attention = seen["attention"]
    assert attention.shape == (2, 8, 9)
    np.testing.assert_allclose(attention.sum(axis=(1, 2)), 1, rtol=1e-5)
    for drawn, all_of_them in zip(seen["sampled_attention"], attention, strict=True):
        distances = np.abs(drawn[:, None] - all_of_them.ravel())
        assert distances.min(axis=1).max() < 1e-6


@pytest.mark.parametrize("scores", [False, True])
def test_viewer_of_a_model_that_was_loaded(scores, tmp_path):
    """Operations of the model have the names that new ones would get."""
    images = keras.Input((60, 90, 3), dtype="uint8")
    if scores:
        view = keras.ops.cast(images, "float32")[:, ::10, ::10]
        map_of_scores = keras.ops.reshape(keras.ops.sum(view, axis=-1), (-1, 6, 9))
        patches, *_ = SamplePatches(4, 5, use_logits=True, return_origins=True)(
            [view, images, keras.ops.exp(-map_of_scores)]
        )
        features = keras.ops.mean(patches, axis=(1, 2, 3))
    else:
        network = keras.layers.GlobalAveragePooling2D()
        features = deep_mil(network, (16, 20), (3, 4))(images)[0]
    model = keras.Model(images, keras.layers.Dense(2)(features))
    model.save(tmp_path / "model.keras")
    keras.backend.clear_session()  # as in another process
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    nothing = np.zeros((2, 60, 90, 3), "uint8")
    seen = deep_mil_viewer(loaded).predict_on_batch([nothing])
    np.testing.assert_allclose(seen["attention"].sum(axis=(1, 2)), 1, rtol=1e-5)


def test_viewer_needs_one_sampling_layer():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="plain")
    with pytest.raises(ValueError, match="Received: 0 SamplePatches layers in 'plain'"):
        attention_viewer(model)


def test_viewer_shows_the_attention_of_deep_mil(rng):
    image = keras.Input((40, 60, 3), dtype="uint8")
    feature = keras.Sequential(
        [keras.Input((16, 24, 3)), keras.layers.GlobalAveragePooling2D()]
    )
    features, attention, _ = deep_mil(feature, (16, 24), (2, 3))(image)
    model = keras.Model([image], keras.layers.Dense(2)(features))
    images = rng.integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    seen = deep_mil_viewer(model).predict_on_batch([images])
    assert set(seen) == {"prediction", "attention"}
    assert seen["attention"].shape == (2, 2, 3)
    expected = keras.Model([image], attention).predict_on_batch([images])
    np.testing.assert_allclose(seen["attention"], expected, rtol=1e-5)
    np.testing.assert_allclose(
        seen["prediction"], model.predict_on_batch([images]), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("map_size", "view_size", "receptive_field"),
    [((3, 4), None, 0), ((3, 4), (15, 20), 0), ((2, 3), (20, 30), 8)],
)
def test_a_pixel_has_the_largest_weight_of_its_patches(
    map_size, view_size, receptive_field, rng
):
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    attention = rng.random(map_size)
    weighted = weigh_patches(image, attention, (24, 18), view_size, receptive_field)
    cells = ops.reshape(ops.arange(attention.size, dtype="int32"), (1, -1))
    origins = window_origins(
        cells, map_size, view_size or (60, 80), (60, 80), (24, 18), receptive_field
    )
    origins = ops.convert_to_numpy(origins)[0]
    weights = np.ravel((attention - attention.min()) / np.ptp(attention))
    for row, column in rng.integers((60, 80), size=(50, 2)):
        covering = [
            weight
            for weight, (top, left) in zip(weights, origins, strict=True)
            if 0 <= row - top < 24 and 0 <= column - left < 18
        ]
        np.testing.assert_allclose(
            weighted[row, column],
            image[row, column] / 255 * max(covering, default=0),
            rtol=1e-6,
        )


def test_where_all_attention_is_alike_the_image_stays(rng):
    image = rng.random((12, 12, 1))
    weighted = weigh_patches(image, np.full((3, 3), 1 / 9), (4, 4))
    np.testing.assert_allclose(weighted, np.repeat(image, 3, axis=-1))


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_shows_the_truth_beside_weighted_patches(tmp_path, channels):
    image = np.full((100, 200, channels), 128, np.uint8)
    weighted = {"first": np.ones((100, 200, 3)), "second": np.zeros((100, 200, 3))}
    path = tmp_path / "picture.png"
    draw_weighted_patches(path, image, weighted, [(40, 140, 60, 180)], [(20, 30)], "it")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)

    def columns(red, green, blue):
        found = np.abs(pixels - [red, green, blue]).max(axis=-1) < 30
        return np.flatnonzero(found.any(axis=0)) / pixels.shape[1]

    marks = columns(0, 255, 0)  # both in the first of three images, and nowhere else
    assert 0.02 < marks.min() < 0.09
    assert 0.2 < marks.max() < 1 / 3
    inner = pixels[pixels.shape[0] // 2]
    shares = [inner[round(share * len(inner)), 0] for share in (1 / 6, 1 / 2, 5 / 6)]
    np.testing.assert_allclose(shares, [128, 255, 0], atol=2)


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
        points=[(150, 250)],
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


def read_lime(path):
    """Return where a picture is lime, and its size."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return np.abs(pixels - [0, 255, 0]).max(axis=-1) < 30


def test_boxes_too_small_to_be_read_are_enlarged(tmp_path):
    image = np.zeros((1500, 1500, 1), "uint8")
    boxes = [(700, 700, 728, 728), (0, 1472, 28, 1500)]
    for top, left, bottom, right in boxes:
        image[top:bottom, left:right] = 255
    weighted = {"nothing": np.zeros((1500, 1500, 3))}
    path = tmp_path / "picture.png"
    draw_weighted_patches(path, image, weighted, boxes[:1], other_boxes=boxes[1:])
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("L"))
    assert 650 < pixels.shape[0] < 750  # a square, and a row beneath
    left = pixels[530:, :495]
    # In its window, of three times its side: a ninth of it, less what the box hides.
    first, second = left[20:-16, 8:158], left[20:-16, 173:323]
    for window in (first, second):
        assert 0.1 < (window == 255).mean() < 0.16
    assert (second == 128).mean() > 0.3  # beyond the border of the image
    # Dashed, around what was not to be found.
    lime = read_lime(path)[530:]
    assert 0.4 < lime[:, 170:325].sum() / lime[:, :160].sum() < 0.9
    # What can be read needs no enlargement.
    draw_weighted_patches(path, image, weighted, [(100, 100, 400, 400)])
    with Image.open(path) as file:
        assert file.size == (1000, 540)


def test_boxes_of_others_are_dashed(tmp_path):
    image = np.zeros((200, 300, 1), "uint8")
    box = [(50, 100, 100, 150)]
    nothing = (np.zeros((1, 9, 9, 1)), np.ones(1), np.full((1, 2), 180))
    lime = []
    for boxes in ({"boxes": box}, {"other_boxes": box}):
        draw_attention(tmp_path / "it.png", image, np.ones((2, 3)), *nothing, **boxes)
        lime.append(read_lime(tmp_path / "it.png").sum())
        draw_weighted_patches(tmp_path / "it.png", image, {}, **boxes)
        lime.append(read_lime(tmp_path / "it.png").sum())
    assert 0 < lime[2] < 0.9 * lime[0]
    assert 0 < lime[3] < 0.9 * lime[1]


def test_our_pictures_are_told_from_others(tmp_path):
    path, other = tmp_path / "ours.png", tmp_path / "other.png"
    image = np.zeros((40, 40, 1), "uint8")
    draw_weighted_patches(path, image, {})
    assert is_ours(path)
    with Image.open(path) as file:
        file.save(other)
    assert not is_ours(other)
    other.write_bytes(path.read_bytes()[:20])
    assert not is_ours(other)
    assert not is_ours(tmp_path)
    patch = (np.zeros((1, 9, 9, 1)), np.ones(1), np.zeros((1, 2)))
    draw_attention(other, image, np.ones((2, 2)), *patch)
    assert is_ours(other)
