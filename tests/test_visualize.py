"""What a model looked at, as arrays and as pictures."""

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
    set_source,
)
from attention_sampling.data import ArraySource, SourceError, open_source
from attention_sampling.visualize import (
    displayable,
    explain,
    explain_image,
    plot_attention,
)


def layer_of(**arguments):
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
    return attention_sampling(attention, feature, n_patches=4, seed=3, **arguments)


def functional(**arguments):
    inputs = [keras.Input((20, 30, 3)), keras.Input((200, 300, 3), dtype="uint8")]
    features, _, _ = layer_of(**arguments)(inputs)
    return keras.Model(inputs, keras.layers.Dense(2)(features))


class Subclassed(keras.Model):
    """A model whose inputs have names."""

    def __init__(self, **arguments):
        super().__init__()
        self.sample = layer_of(**arguments)
        self.classify = keras.layers.Dense(2)

    def call(self, inputs):
        features, _, _ = self.sample([inputs["x_low"], inputs["x_high"]])
        return self.classify(features)


def images_of(rng, count=3):
    return [
        rng.uniform(0, 255, (count, 20, 30, 3)).astype("float32"),
        rng.integers(0, 256, (count, 200, 300, 3), dtype=np.uint8),
    ]


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (functional, {}),
        (functional, {"proposal": LocalContrast(5)}),
        (Subclassed, {}),
        (lambda **arguments: keras.Sequential([functional(**arguments)]), {}),
    ],
    ids=["functional", "with a proposal", "subclassed", "nested"],
)
def test_prediction_and_patches_are_of_the_same_cells(model, arguments, rng):
    """Reference estimator of the patches that are shown, in two batches."""
    model, (x_low, x_high) = model(**arguments), images_of(rng)
    named = isinstance(model, Subclassed)
    inputs = {"x_low": x_low, "x_high": x_high} if named else [x_low, x_high]
    seen = explain(model, inputs, batch_size=2)
    assert list(seen) == [
        "prediction", "attention", "patches", "sampled_attention", "origins",
    ]  # fmt: skip
    assert all(isinstance(array, np.ndarray) for array in seen.values())
    assert seen["patches"].dtype == "uint8"
    for sample in range(3):
        for patch, origin in zip(
            seen["patches"][sample], seen["origins"][sample], strict=True
        ):
            window = reference.window(x_high[sample], origin, (16, 24))
            np.testing.assert_array_equal(patch, window)
        drawn = set(seen["sampled_attention"][sample])
        assert drawn <= set(np.ravel(seen["attention"][sample]))
    features = [
        reference.estimate_unordered(f, a)
        for f, a in zip(
            seen["patches"].mean(axis=(2, 3)), seen["sampled_attention"], strict=True
        )
    ]
    kernel, bias = map(ops.convert_to_numpy, model.trainable_weights[-2:])
    np.testing.assert_allclose(seen["prediction"], features @ kernel + bias, rtol=1e-4)


def test_the_next_call_is_not_recorded(rng):
    """Also where the call failed."""
    model, x = functional(prediction="top_k"), images_of(rng)
    layer = model.layers[2]
    with pytest.raises(Exception, match=r"."):
        explain(model, [x[0], x[1][..., :1]])
    assert layer.observe is None
    seen = explain(model, x)
    assert layer.observe is None
    np.testing.assert_allclose(
        seen["prediction"], model.predict(x, verbose=0), rtol=1e-5
    )


def test_explain_needs_one_layer_that_is_called_once(rng):
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="plain")
    with pytest.raises(ValueError, match="Received: 0 such layers in 'plain'"):
        explain(plain, np.ones((1, 2)))
    inputs = [keras.Input((8, 9, 1)), keras.Input((80, 90, 1))]
    scores = keras.layers.Reshape((8, 9))(inputs[0])
    patches, _ = SamplePatches(4, 5, use_logits=True)([*inputs, scores])
    with pytest.raises(ValueError, match="instead of with SamplePatches and Expect"):
        explain(keras.Model(inputs, patches), [])
    x, layer = images_of(rng), layer_of()
    inputs = [keras.Input((20, 30, 3)), keras.Input((200, 300, 3), dtype="uint8")]
    twice = keras.Model(inputs, [layer(inputs)[0], layer(inputs)[0]])
    with pytest.raises(ValueError, match="Received: 2 calls"):
        explain(twice, x)
    with pytest.raises(ValueError, match="no inputs"):
        explain(functional(), [array[:0] for array in x])


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (iter([1]), TypeError, "of a dataset, those of a batch.*Received: list_iter"),
        ([np.zeros((1, 2)), np.full((1, 2), np.nan)], ValueError, "NaN in input 1"),
        ([[1.0, 2.0]], TypeError, "`inputs` must be arrays.*Received: float"),
        (None, ValueError, "`batch_size` must be an int of at least 1.*=0"),
    ],
)
def test_explain_tells_what_it_takes(inputs, error, message, rng):
    size = 0 if inputs is None else 32
    with pytest.raises(error, match=message):
        explain(functional(), inputs or images_of(rng), batch_size=size)


def test_explain_needs_a_model():
    with pytest.raises(TypeError, match=r"load_model.*Received: model='model\.keras'"):
        explain("model.keras", [])


def read_picture(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count(pixels, *colour):
    return (np.abs(pixels - colour).max(axis=-1) < 30).sum()


@pytest.mark.parametrize(
    ("channels", "size", "more"),
    [(1, (200, 300), {}), (3, (20, 30), {"image_size": (200, 300)})],
)
def test_picture_shows_map_windows_and_patches(tmp_path, channels, size, more):
    attention = np.zeros((10, 15))
    attention[5, 7] = 1
    plot_attention(
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
    pixels = read_picture(tmp_path / "picture.png")
    assert count(pixels, 0, 255, 255) > 200  # frames of the windows
    assert count(pixels, 0, 255, 0) > 20  # the box to be found
    assert count(pixels, 223, 223, 32) > 100  # the attended cell, over the grey image


GREY = [[[0], [51], [255]]]


@pytest.mark.parametrize(
    "image",
    [
        np.array(GREY, "uint8"),
        257 * np.array(GREY, "uint16"),
        np.array(GREY, "int64"),
        257 * np.array(GREY, "int32"),
        np.array(GREY, "float32"),
        np.array(GREY) / 255,
        np.array(GREY) / 254,  # a little more than white, as of a filter
        257 * np.array(GREY, "float64"),
    ],
    ids=lambda image: f"{image.dtype} to {image.max():.4g}",
)
def test_pixels_of_any_kind_are_shown_alike(image):
    """Patches too, which are on the scale of their image however dark they are."""
    shown, patch = displayable(image, image[:, :2])
    grey = np.repeat(np.array(GREY) / 255, 3, axis=-1)
    np.testing.assert_allclose(shown, grey, atol=0.001)
    np.testing.assert_array_equal(patch, shown[:, :2])


@pytest.mark.parametrize(
    "pixels", [[-1.0, 1.0], [0.0, 1e6], [0.0, np.nan], [-3, 200], [0, 70000]]
)
def test_pixels_of_another_range_are_refused(pixels):
    with pytest.raises(ValueError, match=r"from 0 to 1, 255 or 65535\. Received: "):
        displayable(np.reshape(pixels, (1, 2, 1)))


def test_boxes_of_others_are_dashed(tmp_path):
    image, path = np.zeros((200, 300, 1), "uint8"), tmp_path / "it.png"
    nothing = (np.zeros((1, 9, 9, 1)), np.ones(1), np.full((1, 2), 180))
    lime = []
    for name in ("boxes", "other_boxes"):
        box = {name: [(50, 100, 100, 150)]}
        plot_attention(path, image, np.ones((2, 3)), *nothing, **box)
        lime.append(count(read_picture(path), 0, 255, 0))
    assert 0 < lime[1] < 0.9 * lime[0]


class TestPaths:
    """A model and the path of an image."""

    @pytest.fixture
    def path(self, tmp_path, rng):
        pixels = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photo.png")
        return tmp_path / "photo.png"

    def of_source(self, path, **arguments):
        source = open_source(path)
        inputs = [keras.Input((20, 30, 3)), keras.Input((), dtype="int32")]
        features, _, _ = layer_of(source=source, **arguments)(inputs)
        return keras.Model(inputs, keras.layers.Dense(2, "softmax")(features))

    @pytest.mark.parametrize("kind", ["source", "tensors", "loaded"])
    def test_are_explained_as_their_arrays(self, path, tmp_path, kind):
        names = {"class_names": ["cat", "dog"], "prediction": "top_k"}
        make = functional if kind == "tensors" else self.of_source
        model = make(**names) if kind == "tensors" else make(path, **names)
        image = np.asarray(Image.open(path))
        view = image.reshape(20, 10, 30, 10, 3).mean((1, 3), dtype="float32")
        high = image[None] if kind == "tensors" else np.array([0], "int32")
        expected = explain(model, [view[None], high])
        if kind == "loaded":
            model.save(tmp_path / "model.keras")
            model = keras.saving.load_model(tmp_path / "model.keras")
        seen = explain(model, str(path))
        best = int(expected["prediction"][0].argmax())
        assert next(iter(seen["prediction"])) == ["cat", "dog"][best]
        for name, value in zip(["cat", "dog"], expected["prediction"][0], strict=True):
            assert seen["prediction"][name] == pytest.approx(value, abs=1e-5)
        for key in ("attention", "sampled_attention", "origins", "patches"):
            np.testing.assert_allclose(seen[key], expected[key][0], atol=1e-5)
        np.testing.assert_array_equal(seen["image"], image)
        assert seen["image_size"] == (200, 300)
        plot_attention(tmp_path / "seen.png", **seen)
        with Image.open(tmp_path / "seen.png") as picture:
            assert min(picture.size) > 300

    def test_the_source_of_the_model_stays(self, path):
        model = self.of_source(path)
        source = ArraySource(np.zeros((2, 200, 300, 3), "uint8"))
        set_source(model, source)
        seen = explain(model, path)
        assert seen["patches"].any()
        view = np.zeros((1, 20, 30, 3), "float32")
        assert not explain(model, [view, np.array([1])])["patches"].any()
        assert isinstance(seen["prediction"], np.ndarray)  # classes without names

    def test_grey_photographs_become_rgb(self, path, tmp_path):
        model = self.of_source(path)
        Image.open(path).convert("L").save(tmp_path / "grey.jpg")
        assert explain(model, tmp_path / "grey.jpg")["patches"].shape[-1] == 3

    def test_what_cannot_be_explained(self, path, tmp_path):
        model = self.of_source(path)
        with pytest.raises(SourceError, match="no such file"):
            explain(model, tmp_path / "none.png")
        np.save(tmp_path / "image.npy", np.zeros((4, 4)))
        with pytest.raises(SourceError, match=r"image\.npy: this is no image"):
            explain(model, tmp_path / "image.npy")
        source = ArraySource(np.zeros((1, 10, 10, 3), "uint8"))
        with pytest.raises(ValueError, match="view must not be larger"):
            explain_image(model, source, 0)
        source = ArraySource(np.zeros((1, 200, 300, 3), "uint8"))
        inputs = [keras.Input((None, None, 3)), keras.Input((), dtype="int32")]
        free = keras.Model(inputs, layer_of(source=source)(inputs)[0])
        with pytest.raises(ValueError, match="views of any size"):
            explain(free, path)
