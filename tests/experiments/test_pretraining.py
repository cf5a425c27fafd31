"""Windows and cells that networks learn from before labels."""

import dataclasses

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("the images come from tf.data", allow_module_level=True)

from attention_sampling.experiments.pretraining import (
    begin_with,
    choose_part,
    cut_windows,
    find_networks,
    mark_cells,
)
from attention_sampling.experiments.sign_networks import sign_attention, sign_features
from attention_sampling.experiments.tasks import TASKS, build_model


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


def test_a_model_of_any_method_begins_with_the_networks_of_another(rng):
    task = dataclasses.replace(
        TASKS["speed_limits"],
        image_shape=(96, 128, 3),
        view_size=(48, 64),
        patch_size=(48, 48),
        attention=sign_attention,
        feature=sign_features,
        receptive_field=0,
        grid_size=(2, 2),
    )
    first = build_model(task, "ats-3", seed=0)
    for network in find_networks(first).values():
        network.set_weights([rng.normal(size=w.shape) for w in network.get_weights()])
    for method, names in (
        ("ats-2", {"feature", "label", "attention"}),
        ("u-2", {"feature", "label"}),
        ("deep-mil", {"feature", "label"}),
    ):
        model = build_model(task, method, seed=1)
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
