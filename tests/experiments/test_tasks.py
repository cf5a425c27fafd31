"""The paper's experiments: their data, their methods, their models."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
from keras import ops

from attention_sampling import LocalContrast, SamplePatches, SamplingMetrics
from attention_sampling.data import ArraySource
from attention_sampling.experiments.baselines import (
    AreaDownsampling,
    AttentionPooling,
    ExtractGrid,
)
from attention_sampling.experiments.networks import residual_features
from attention_sampling.experiments.tasks import (
    TASKS,
    Method,
    PublishedRow,
    Task,
    build_model,
    parse_method,
)

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


@pytest.mark.parametrize(
    ("name", "method", "policy"),
    [
        *(("megapixel_mnist", method, "mixed_bfloat16") for method in METHODS),
        *(("speed_limits", method, "float32") for method in METHODS[:3]),
        ("colon_cancer", "ats-3", "mixed_bfloat16"),
    ],
)
def test_every_method_gives_probabilities(name, method, policy, rng):
    keras.config.set_dtype_policy(policy)
    task = small(name)
    model = build_model(task, method, seed=0, feature_scale=4, center=True)
    assert [entry.name for entry in model.inputs] == [*parse_method(method).inputs]
    assert model.output_shape == (None, task.n_classes)
    probabilities = model(batch_of(task, method, rng))
    assert keras.backend.standardize_dtype(probabilities.dtype) == "float32"
    np.testing.assert_allclose(
        ops.convert_to_numpy(probabilities).sum(axis=1), 1, rtol=1e-5
    )


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_the_inputs_of_the_paper(name):
    task = TASKS[name]
    model = build_model(task, "ats-5")
    view, image = model.inputs
    assert (view.shape, view.dtype) == ((None, *task.view_shape), "float32")
    assert (image.shape, image.dtype) == ((None, *task.image_shape), "uint8")
    (image,) = build_model(task, "cnn-1").inputs
    assert (image.shape, image.dtype) == ((None, *task.image_shape), "uint8")


@pytest.mark.parametrize(
    ("name", "grid"),
    [("megapixel_mnist", 60 * 60), ("colon_cancer", 2500), ("speed_limits", 192)],
)
def test_deep_mil_has_the_grid_of_the_paper(name, grid):
    task = TASKS[name]
    patches = layer_of(build_model(task, "deep-mil"), ExtractGrid).output
    assert patches.shape == (None, grid, *task.patch_shape)
    tops, lefts = ExtractGrid(task.patch_size, task.deep_mil_grid).origins(
        task.image_shape[:2]
    )
    # At least half a patch but for rounding, where the paper does not say otherwise.
    if name != "colon_cancer":
        assert np.diff(tops).min() >= task.patch_size[0] / 2 - 1
        assert np.diff(lefts).min() >= task.patch_size[1] / 2 - 1


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("colon_cancer", (250, 500), (25, 50)),  # ten pixels from patch to patch
        ("speed_limits", (480, 640), (6, 8)),
        ("speed_limits", (100, 100), (1, 1)),
        ("megapixel_mnist", (500, 500), (20, 20)),  # half a patch
    ],
)
def test_patches_of_deep_mil_keep_their_distance_in_images_of_another_size(
    name, size, grid
):
    task = TASKS[name].resized(size, (64, 64))
    assert task.deep_mil_grid == grid
    assert task.image_shape == (*size, TASKS[name].image_shape[-1])
    assert task.view_size == (64, 64)
    assert task.patch_size == TASKS[name].patch_size


def test_only_what_is_asked_for_is_resized():
    task = TASKS["speed_limits"]
    assert task.resized() == task
    assert task.resized(view_size=(96, 128)) == dataclasses.replace(
        task, view_size=(96, 128)
    )


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            {"image_size": (90, 1280)},
            r"patch_size=\(100, 100\).*image_size=\(90, 1280\)",
        ),
        (
            {"view_size": (961, 1280)},
            r"view_size=\(961, 1280\).*image_size=\(960, 1280",
        ),
        ({"view_size": (8, 384)}, r"receptive field.*9 pixels.*view_size=\(8, 384\)"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        TASKS["speed_limits"].resized(**sizes)


@pytest.mark.parametrize("name", TASKS)
def test_uniform_and_learned_attention_draw_from_the_same_places(name):
    uniform, learned = (
        layer_of(build_model(small(name), method), SamplePatches)
        for method in ("u-3", "ats-3")
    )
    assert uniform.input[2].shape == learned.input[2].shape
    assert uniform.receptive_field == learned.receptive_field
    assert learned.receptive_field == TASKS[name].receptive_field


def test_uniform_draws_count_alike(rng):
    """All 24 places drawn, in any order: the mean over all of them."""
    task = dataclasses.replace(small("colon_cancer"), view_size=(4, 6))
    draw = build_model(task, "u-24", seed=0)
    everywhere = build_model(task, "u-3", sampling={"prediction": "all"})
    everywhere.set_weights(draw.get_weights())
    batch = batch_of(task, "u-24", rng)
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(model(batch)) for model in (draw, everywhere)), rtol=1e-4
    )


def layer_of(model, kind):
    (layer,) = (layer for layer in model.layers if isinstance(layer, kind))
    return layer


@pytest.mark.parametrize("method", ["ats-3", "u-3", "cnn-0.5"])
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
    source = ArraySource(image)
    models = [
        build_model(task, "ats-3", seed=0, sampling=sampling)
        for sampling in ({}, {"source": source})
    ]
    models[1].set_weights(models[0].get_weights())
    assert models[1].inputs[1].name == "index"
    assert models[1].inputs[1].dtype == "int32"
    in_memory = models[0]([view, image])
    on_disk = models[1]([view, np.array([0, 1], "int32")])
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(output) for output in (in_memory, on_disk)), rtol=1e-5
    )


def test_keywords_reach_attention_sampling():
    sampling = {"proposal": LocalContrast(), "metrics": True, "predict_samples": 2}
    model = build_model(small("colon_cancer"), "ats-3", sampling=sampling)
    assert layer_of(model, SamplePatches).predict_samples == 2
    assert layer_of(model, SamplingMetrics)
    assert layer_of(model, LocalContrast)


@pytest.mark.parametrize(
    ("method", "entropy", "regularized"),
    [("ats-3", None, True), ("ats-3", 0, False), ("u-3", 0.1, False)],
)
def test_entropy_is_that_of_a_learned_attention(method, entropy, regularized, rng):
    task = small("colon_cancer")
    model = build_model(task, method, entropy=entropy)
    model(batch_of(task, method, rng))
    assert bool(model.losses) is regularized


def test_entropy_of_the_task_is_the_default(rng):
    task = dataclasses.replace(small("colon_cancer"), entropy=0.5)
    batch = batch_of(task, "ats-3", rng)
    losses = []
    for entropy in (None, 0.25):
        keras.utils.set_random_seed(0)
        model = build_model(task, "ats-3", entropy=entropy)
        model(batch)
        losses.append(float(ops.convert_to_numpy(model.losses[0])))
    assert losses[0] == pytest.approx(2 * losses[1], rel=1e-4)


@pytest.mark.parametrize("name", TASKS)
def test_features_are_centred_where_asked(name):
    counts = [
        sum(
            isinstance(layer, keras.layers.BatchNormalization)
            for layer in build_model(small(name), "ats-3", center=center)
            .get_layer("feature")
            .layers
        )
        for center in (False, True)
    ]
    # The residual features of the speed limits always are.
    assert counts[1] - counts[0] == (name != "speed_limits")


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


def test_networks_of_a_task_may_be_others():
    feature = functools.partial(residual_features, filters=(4,), strides=(2,))
    task = dataclasses.replace(
        small("colon_cancer"),
        feature=feature,
        convolutional={"filters": (6,), "strides": (2,)},
    )
    for method in ("ats-3", "deep-mil"):
        model = build_model(task, method, center=True)
        assert model.get_layer("feature").output_shape == (None, 4)
    model = build_model(task, "cnn-1")
    assert model.get_layer("cnn").output_shape == (None, 6)


def test_network_on_whole_images_of_the_speed_limits_is_the_feature_network():
    """So that the methods differ in what they look at, and in nothing else."""
    features = build_model(TASKS["speed_limits"], "ats-5").get_layer("feature")
    whole = build_model(TASKS["speed_limits"], "cnn-1").get_layer("cnn")
    kernels = [
        [
            tuple(weight.shape)
            for weight in network.trainable_weights
            if "kernel" in weight.path
        ]
        for network in (features, whole)
    ]
    assert kernels[0] == kernels[1]
    assert len(kernels[0]) == 1 + 3 * 3  # a convolution, three blocks with shortcuts


def test_a_model_is_that_of_the_method():
    task = small("colon_cancer")
    assert layer_of(build_model(task, "ats-7"), SamplePatches).n_patches == 7
    scaled = build_model(task, "cnn-0.5").get_layer("cnn")
    assert layer_of(scaled, AreaDownsampling).scale == 0.5
    for method, gated in (("deep-mil", False), ("deep-mil-gated", True)):
        assert layer_of(build_model(task, method), AttentionPooling).gated is gated


@pytest.mark.parametrize("text", ["ats-10", "u-1", "cnn-0.5", "cnn-1", *METHODS[-2:]])
def test_a_method_is_its_text(text):
    method = parse_method(text)
    assert str(method) == text
    assert method.inputs == (("view", "image") if text[0] in "au" else ("image",))


def test_method_holds_what_the_text_says():
    assert parse_method("ats-25") == Method("ats", n_patches=25)
    assert parse_method("u-5") == Method("u", n_patches=5)
    assert (
        parse_method("cnn-0.30") == parse_method("cnn-.3") == Method("cnn", scale=0.3)
    )
    assert parse_method("cnn-1.0") == Method("cnn", scale=1.0)
    assert parse_method("deep-mil-gated") == Method("deep-mil", gated=True)


@pytest.mark.parametrize(
    "text",
    ["", "ats", "ats-0", "ats--1", "ats-1.5", "cnn-0", "cnn-1.5", "cnn-0.0", "cnn-x",
     "deep-mil-2", "ATS-10", "ats-10 ", "cnn-1.", "u-01"],
)  # fmt: skip
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=r"Expected: ats-N.* Received: method="):
        parse_method(text)


@pytest.mark.parametrize("method", ["cnn-1", "deep-mil"])
def test_methods_that_draw_nothing_have_no_sampling(method):
    with pytest.raises(
        ValueError, match=r"draws no patches.*Received: sampling=\{'rep"
    ):
        build_model(small("colon_cancer"), method, sampling={"replace": True})


def test_of_equal_places_none_comes_first():
    with pytest.raises(ValueError, match="prediction not 'top_k'"):
        build_model(small("colon_cancer"), "u-3", sampling={"prediction": "top_k"})


def test_uniform_draws_have_no_proposal():
    with pytest.raises(ValueError, match="draws every place alike"):
        build_model(
            small("colon_cancer"), "u-3", sampling={"proposal": LocalContrast()}
        )


def test_method_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"`method.kind` must be one of 'ats'"):
        build_model(small("colon_cancer"), Method("resnet"))


@pytest.mark.parametrize("name", TASKS)
def test_published_rows_are_methods(name):
    task = TASKS[name]
    assert task.name == name
    assert task.methods == tuple(task.published)
    assert [str(parse_method(text)) for text in task.methods] == [*task.methods]
    assert task.reference in task.methods


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


def test_published_errors_are_those_of_the_text():
    mnist, colon = (
        TASKS[name].published for name in ("megapixel_mnist", "colon_cancer")
    )
    assert (mnist["ats-5"].test_error, mnist["cnn-1"].test_error) == (0.2, 0.4)
    assert mnist["ats-100"] == PublishedRow()
    assert (colon["u-10"].test_error, colon["u-50"].test_error) == (0.156, 0.124)
    assert isinstance(TASKS["speed_limits"], Task)
