"""Windows and cells that networks learn from before labels."""

import dataclasses

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("the images come from tf.data", allow_module_level=True)

import tensorflow as tf

from attention_sampling.experiments import pretraining
from attention_sampling.experiments.data import Images
from attention_sampling.experiments.pretraining import (
    begin_with,
    choose_part,
    cut_windows,
    find_networks,
    fit_classifier,
    mark_cells,
    mark_views,
    pretrain,
)
from attention_sampling.experiments.sign_networks import sign_attention, sign_features
from attention_sampling.experiments.tasks import TASKS, build_model

TASK = dataclasses.replace(
    TASKS["speed_limits"],
    image_shape=(96, 128, 3),
    view_size=(48, 64),
    patch_size=(48, 48),
    attention=sign_attention,
    feature=sign_features,
    receptive_field=0,
    n_classes=5,
    grid_size=(2, 2),
)


def test_windows_show_the_limit_another_sign_or_anything(rng):
    image = np.zeros((200, 300, 3), "uint8")
    image[40:60, 100:120] = 255, 0, 0  # the limit
    image[150:170, 30:50] = 0, 255, 0  # another sign
    boxes, others = [(40, 100, 60, 120)], [(150, 30, 170, 50)]
    sizes = []
    for _ in range(50):
        windows, labels = cut_windows(rng, image, boxes, others, 3, (48, 48))
        assert windows.shape == (3, 48, 48, 3)
        assert windows.dtype == "uint8"
        assert labels.tolist() == [3, 3, 0]
        red, green = (windows[..., c] > 127 for c in (0, 1))
        assert red[:2].any((1, 2)).all()
        assert not red[2].any()
        assert green[2].any()
        assert not green[:2].any()
        sizes.extend(red[:2].sum((1, 2)) ** 0.5)
        # A whole sign, as far from the middle as the cells of a map may leave it.
        rows, columns = np.nonzero(red[0])
        assert abs(rows.mean() - 23.5) < 10
        assert abs(columns.mean() - 23.5) < 10
    assert 15 < min(sizes) < 18
    assert 22 < max(sizes) < 26
    windows, labels = cut_windows(rng, image, [], others, 0, (48, 48))
    assert labels.tolist() == [0, 0, 0]
    assert (windows[:2, ..., 1] > 127).any((1, 2)).all()
    # A window of anything has the label of the limit in it.
    seen = [cut_windows(rng, image, boxes, [], 3, (150, 150))[1][2] for _ in range(100)]
    assert set(seen) == {0, 3}


def test_signs_larger_than_a_patch_are_seen_in_part(rng):
    image = np.full((200, 200, 3), 255, "uint8")
    windows, labels = cut_windows(rng, image, [(10, 10, 190, 190)], [], 1, (48, 48))
    assert labels[:2].tolist() == [1, 1]
    assert windows[:2].min() == 255


def test_parts_hold_the_middle_of_a_box(rng):
    boxes = np.array([(0, 0, 10, 10), (70, 100, 96, 128)])
    chosen = np.array([choose_part(rng, boxes, (96, 128)) for _ in range(500)])
    origin, extent = chosen[:, :2], chosen[:, 2:]
    assert (origin >= 0).all()
    assert (origin + extent <= (96, 128)).all()
    assert (extent >= (57, 76)).all()
    assert (extent.min(0) < (60, 80)).all()
    assert (extent.max(0) > (93, 124)).all()
    middles = np.array([(5, 5), (83, 114)])
    inside = (origin[:, None] <= middles) & (middles < (origin + extent)[:, None])
    inside = inside.all(-1)
    assert inside.any(1).all()
    assert (inside.sum(0) > 150).all()
    # A box half outside of the image has its middle at the border.
    part = choose_part(rng, np.array([(90, -40, 140, 10)]), (96, 128))
    assert part[0] + part[2] == 96
    assert part[1] == 0


def test_features_are_certainties():
    network = sign_features((48, 48, 3), n_classes=3)
    probabilities = keras.Model(network.input, network.get_layer("classes").output)
    patches = np.random.default_rng(0).integers(256, size=(4, 48, 48, 3))
    expected = np.asarray(probabilities(patches)) ** 5
    np.testing.assert_allclose(network(patches), expected, rtol=1e-4)


def test_cells_in_the_middle_of_a_box_are_marked():
    marked = mark_cells([(36, 60, 52, 76)], (80, 160, 3), (10, 20))
    # Of cells of 8 pixels, those whose centres are within 8 of (44, 68).
    assert {*zip(*np.nonzero(marked), strict=True)} == {
        (row, column) for row in (4, 5, 6) for column in (7, 8, 9)
    }
    assert mark_cells([], (80, 160, 3), (10, 20)).sum() == 0
    # However small the box, the cell that it is in is marked.
    for row, column in np.random.default_rng(0).uniform(1, 79, (20, 2)):
        box = (row - 1, column - 1, row + 1, column + 1)
        marked = mark_cells([box], (80, 80), (10, 10))
        assert marked[int(row // 8), int(column // 8)] == 1


def test_weights_of_patches_fit_those_of_larger_images(rng):
    small, large = sign_features((48, 48, 3)), sign_features((96, 96, 3))
    large.set_weights(small.get_weights())
    patch = rng.integers(256, size=(2, 48, 48, 3)).astype("uint8")
    twice = patch.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(small(patch), large(twice), rtol=1e-4, atol=1e-5)


def few_images(rng, **changes):
    """Return eight grey images, brighter at the right, the last four with a red square."""
    pixels = np.full((8, 96, 128, 3), 100, "uint8")
    pixels[:, :, 64:] = 120
    boxes = [([], [])] * 4
    for image in pixels[4:]:
        top, left = rng.integers(0, (70, 100))
        image[top : top + 24, left : left + 24] = 255, 0, 0
        boxes.append(([(top, left, top + 24, left + 24)], []))
    values = {
        "task": TASK,
        "classes": ("empty", "30", "50", "70", "80"),
        "labels": np.repeat([0, 1], 4),
        "splits": lambda seed: [],
        "read": lambda index: tf.gather(tf.constant(pixels), index),
        "truth": lambda index: None,
        "about": {},
        "changes": {"brightness": 0.2, "contrast": 0.0},
        "boxes": boxes,
    }
    return Images(**{**values, **changes})


def test_marked_cells_are_where_the_sign_is_in_the_view(rng):
    images = few_images(rng)
    mirrored, light = [], []
    dataset = mark_views(images, np.arange(4, 8), (12, 16), 0)
    assert [x.shape for x in dataset.element_spec] == [(48, 64, 3), (12, 16)]
    for view, marked in dataset.repeat(50):
        view, marked = view.numpy(), marked.numpy()
        red = np.argwhere(view[..., 0] > view[..., 1] + 50)
        assert marked.any()
        cells = np.argwhere(marked) * 4 + 1.5
        if red.min() > 2 and (red.max(0) < (45, 61)).all():  # all of it can be seen
            assert abs(cells.mean(0) - red.mean(0)).max() < 3
        mirrored.append(np.median(view[:, 0, 1]) > np.median(view[:, -1, 1]))
        light.append(view[..., 1].max())
    # Half are mirrored, bright ones and dark ones.
    mirrored, light = np.array(mirrored), np.array(light)
    assert 0.3 < mirrored.mean() < 0.7
    for some in (mirrored, ~mirrored):
        assert light[some].min() < np.median(light) - 20
        assert light[some].max() > np.median(light) + 20


@pytest.mark.parametrize("method", ["ats-2", "u-2", "deep-mil"])
def test_the_classifier_alone_learns_and_batch_normalization_stays(rng, method):
    images = few_images(rng)
    model = build_model(images.task, method, seed=0, feature_scale=30)
    before = {name: x.get_weights() for name, x in find_networks(model).items()}
    fit_classifier(model, images, np.arange(8), 0, {0: 1.0, 1: 2.0})
    frozen = 0
    for name, network in find_networks(model).items():
        pairs = zip(before[name], network.get_weights(), strict=True)
        same = [np.array_equal(*pair) for pair in pairs]
        assert not any(same) if name == "label" else all(same)
        layers = getattr(network, "layers", [network])
        for layer in layers:
            is_fixed = isinstance(layer, keras.layers.BatchNormalization)
            assert layer.trainable != is_fixed
            frozen += is_fixed
    assert frozen == {"ats-2": 11, "u-2": 6, "deep-mil": 6}[method]


def test_the_classifier_alone_learns_from_any_of_many_images(rng, monkeypatch):
    # Images sorted by class: the first are of one class alone.
    monkeypatch.setattr(pretraining, "_MOST_IMAGES", 4)
    images, chosen = few_images(rng), []
    model = build_model(images.task, "ats-2", seed=0)
    batches = Images.batches

    def note(images, indices, *others):
        chosen.append(sorted(indices))
        return batches(images, indices, *others)

    monkeypatch.setattr(Images, "batches", note)
    for seed in (0, 1):
        fit_classifier(model, images, np.arange(8), seed)
    assert len({*chosen[0]}) == 4
    assert chosen[0] != chosen[1]
    assert max(chosen[0]) > 3


def test_windows_without_a_limit_need_a_class(rng):
    images = few_images(rng, classes=("30", "50"))
    model = build_model(images.task, "ats-2", seed=0)
    with pytest.raises(ValueError, match="Windows without a limit need a class"):
        pretrain(model, images, np.arange(8), 1, 0)


def test_a_model_of_any_method_begins_with_the_networks_of_another(rng):
    first = build_model(TASK, "ats-3", seed=0)
    for network in find_networks(first).values():
        network.set_weights([rng.normal(size=w.shape) for w in network.get_weights()])
    for method, names in (
        ("ats-2", {"feature", "label", "attention"}),
        ("u-2", {"feature", "label"}),
        ("deep-mil", {"feature", "label"}),
    ):
        model = build_model(TASK, method, seed=1)
        begin_with(model, first)
        theirs, ours = find_networks(first), find_networks(model)
        assert ours.keys() == names
        for name in names:
            for a, b in zip(
                theirs[name].get_weights(), ours[name].get_weights(), strict=True
            ):
                np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="has no network for the attention"):
        begin_with(first, model)
    other = dataclasses.replace(TASK, n_classes=3)
    with pytest.raises(ValueError, match="The network for the label is another one"):
        begin_with(build_model(other, "u-2"), first)
    stranger = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="ours")])
    with pytest.raises(ValueError, match=r"is another one.*layers \['ours'\]"):
        begin_with(first, stranger)
