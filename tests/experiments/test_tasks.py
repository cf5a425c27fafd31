"""The paper's experiments: their methods, their models, the published numbers."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from attention_sampling import LocalContrast, SamplePatches
from attention_sampling.data import ArraySource
from attention_sampling.experiments.baselines import (
    AreaDownsampling,
    AttentionPooling,
    ExtractGrid,
)
from attention_sampling.experiments.methods import Method, parse_method
from attention_sampling.experiments.tasks import TASKS, build_model

METHODS = ["ats-3", "u-3", "cnn-0.5", "cnn-1", "deep-mil", "deep-mil-gated"]


def small(name):
    """A task with images of a few pixels; its networks are the paper's."""
    sizes = {
        "megapixel_mnist": {"image_shape": (40, 48, 1), "patch_size": (14, 16)},
        "colon_cancer": {"image_shape": (40, 48, 3), "patch_size": (12, 14)},
        "speed_limits": {"image_shape": (60, 80, 3), "patch_size": (12, 14)},
    }
    view = (30, 40) if name == "speed_limits" else (10, 12)
    return dataclasses.replace(
        TASKS[name], **sizes[name], view_size=view, grid_size=(2, 3)
    )


def batch_of(task, method, rng, size=2):
    shapes = {"view": task.view_shape, "image": task.image_shape}
    dtypes = {"view": "float32", "image": "uint8"}
    return [
        rng.uniform(0, 255, (size, *shapes[name])).astype(dtypes[name])
        for name in parse_method(method).inputs
    ]


def layer_of(model, kind):
    (layer,) = (x for x in model._flatten_layers() if isinstance(x, kind))
    return layer


@pytest.mark.parametrize(
    ("name", "method", "policy"),
    [
        *(("megapixel_mnist", method, "mixed_bfloat16") for method in METHODS),
        ("speed_limits", "ats-3", "float32"),
        ("colon_cancer", "ats-3", "mixed_bfloat16"),
    ],
)
def test_every_method_gives_probabilities(name, method, policy, rng):
    keras.config.set_dtype_policy(policy)
    task = small(name)
    model = build_model(task, method, seed=0, feature_scale=4, center=True)
    assert [entry.name for entry in model.inputs] == [*parse_method(method).inputs]
    probabilities = model(batch_of(task, method, rng))
    assert keras.backend.standardize_dtype(probabilities.dtype) == "float32"
    assert probabilities.shape == (2, task.n_classes)
    np.testing.assert_allclose(
        ops.convert_to_numpy(probabilities).sum(axis=1), 1, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "grid"),
    [("megapixel_mnist", 60 * 60), ("colon_cancer", 2500), ("speed_limits", 192)],
)
def test_a_task_has_the_sizes_of_the_paper(name, grid):
    task = TASKS[name]
    view, image = build_model(task, task.reference).inputs
    assert (view.shape, view.dtype) == ((None, *task.view_shape), "float32")
    assert (image.shape, image.dtype) == ((None, *task.image_shape), "uint8")
    patches = layer_of(build_model(task, "deep-mil"), ExtractGrid).output
    assert patches.shape == (None, grid, *task.patch_shape)
    assert task.methods == tuple(task.published)
    assert [str(parse_method(text)) for text in task.methods] == [*task.methods]


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("colon_cancer", (250, 500), (25, 50)),  # ten pixels from patch to patch
        ("speed_limits", (100, 100), (1, 1)),
        ("megapixel_mnist", (500, 500), (20, 20)),  # half a patch
    ],
)
def test_patches_of_deep_mil_keep_their_distance_in_other_images(name, size, grid):
    task = TASKS[name].resized(size, (64, 64))
    assert task.deep_mil_grid == grid
    assert task.image_shape == (*size, TASKS[name].image_shape[-1])
    assert task.view_size == (64, 64)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": (90, 1280)}, r"patch_size=\(100, 100\).*=\(90, 1280\)"),
        ({"view_size": (961, 1280)}, r"view_size=\(961, 1280\).*=\(960, 1280"),
        ({"view_size": (8, 384)}, r"receptive field.*9 pixels.*view_size=\(8, 384\)"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        TASKS["speed_limits"].resized(**sizes)


def test_uniform_samples_count_alike(rng):
    """All 24 cells sampled, in any order: the mean over all of them."""
    task = dataclasses.replace(small("colon_cancer"), view_size=(4, 6))
    sample = build_model(task, "u-24", seed=0)
    everywhere = build_model(task, "u-3", sampling={"prediction": "all"})
    everywhere.set_weights(sample.get_weights())
    batch = batch_of(task, "u-24", rng)
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(model(batch)) for model in (sample, everywhere)),
        rtol=1e-4,
    )


@pytest.mark.parametrize("method", ["ats-3", "u-3", "cnn-0.5", "deep-mil-gated"])
def test_a_model_is_trained_saved_and_loaded(method, rng, tmp_path):
    task = dataclasses.replace(
        small("colon_cancer"), convolutional={"filters": (4,), "strides": (2,)}
    )
    model = build_model(task, method, seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    batch, labels = batch_of(task, method, rng), np.array([0, 1])
    before = [np.array(weight) for weight in model.get_weights()]
    model.fit(batch, labels, verbose=0)
    for was, weight in zip(before, model.weights, strict=True):
        assert not np.array_equal(was, ops.convert_to_numpy(weight)), weight.path
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(model(batch)) for model in (model, loaded)), rtol=1e-4
    )


def test_images_may_stay_on_disk(rng):
    task = small("megapixel_mnist")
    view, image = batch_of(task, "ats-3", rng)
    models = [
        build_model(task, "ats-3", seed=0, sampling=sampling)
        for sampling in ({}, {"source": ArraySource(image)})
    ]
    models[1].set_weights(models[0].get_weights())
    in_memory = models[0]([view, image])
    on_disk = models[1]([view, np.array([0, 1], "int32")])
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(output) for output in (in_memory, on_disk)), rtol=1e-5
    )


def test_options_reach_the_model(rng):
    task = small("colon_cancer")
    options = {"proposal": LocalContrast(), "prediction": "top_k"}
    model = build_model(task, "ats-7", entropy=0.5, center=True, sampling=options)
    layer = layer_of(model, SamplePatches)
    assert (layer.n_patches, layer.prediction) == (7, "top_k")
    assert layer_of(model, LocalContrast)
    assert layer_of(model, keras.layers.BatchNormalization)
    model(batch_of(task, "ats-7", rng))
    assert len(model.losses) == 1
    uniform = build_model(task, "u-7", entropy=0.5)
    uniform(batch_of(task, "u-7", rng))
    assert not uniform.losses
    assert layer_of(build_model(task, "cnn-0.5"), AreaDownsampling).scale == 0.5
    assert layer_of(build_model(task, "deep-mil-gated"), AttentionPooling).gated


def test_feature_scale_multiplies_the_feature(rng):
    task = small("megapixel_mnist")
    models = [build_model(task, "deep-mil", feature_scale=scale) for scale in (1, 4)]
    weights = models[0].get_weights()
    models[0].set_weights([*weights[:-2], 4 * weights[-2], weights[-1]])
    models[1].set_weights(weights)
    batch = batch_of(task, "deep-mil", rng)
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(model(batch)) for model in models), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("method", "sampling", "message"),
    [
        ("cnn-1", {"replace": True}, "samples no patches"),
        ("deep-mil", {"seed": 3}, "samples no patches"),
        ("u-3", {"prediction": "top_k"}, "samples every cell alike"),
        ("u-3", {"proposal": LocalContrast()}, "samples every cell alike"),
    ],
)
def test_what_a_method_does_not_have_is_refused(method, sampling, message):
    with pytest.raises(ValueError, match=rf"{message}.*Received: sampling=\{{'"):
        build_model(small("colon_cancer"), method, sampling=sampling)


def test_a_method_holds_what_its_text_says():
    assert parse_method("ats-25") == Method("ats", n_patches=25)
    assert parse_method("u-5").inputs == ("view", "image")
    assert (
        parse_method("cnn-0.30") == parse_method("cnn-.3") == Method("cnn", scale=0.3)
    )
    assert str(parse_method("cnn-1.0")) == "cnn-1"
    assert parse_method("deep-mil-gated") == Method("deep-mil", gated=True)


@pytest.mark.parametrize(
    "text",
    ["", "ats", "ats-0", "ats-1.5", "cnn-0", "cnn-1.5", "cnn-x", "deep-mil-2", "u-01"],
)
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"Expected: ats-N.* Received: method="):
        parse_method(text)


@pytest.mark.parametrize(
    ("name", "method", "quantity", "ratio"),
    [  # what the text of sections 4.3.1 and 4.4.1 makes of the tables
        ("colon_cancer", "deep-mil", "ms", 25),
        ("colon_cancer", "cnn-1", "ms", 10),
        ("colon_cancer", "deep-mil", "mb", 30),
        ("colon_cancer", "cnn-0.5", "mb", 3),
        ("speed_limits", "deep-mil", "mb", 17),
    ],
)
def test_published_numbers_have_the_ratios_of_the_text(name, method, quantity, ratio):
    rows = TASKS[name].published
    published = getattr(rows[method], quantity) / getattr(
        rows[TASKS[name].reference], quantity
    )
    assert published == pytest.approx(ratio, rel=0.1)
