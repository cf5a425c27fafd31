import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from source_contract import SLIDE, needs_slide

from attention_sampling.data import ArraySource, Dihedral, SourceError
from attention_sampling.data import views as views_module
from attention_sampling.data.labels import label_images
from attention_sampling.data.view_cache import view_reader
from attention_sampling.data.views import (
    choose_images,
    image_order,
    view_and_image_dataset,
    view_dataset,
)

SIZE, VIEW = (40, 60), (8, 12)


@pytest.fixture
def images(rng):
    images = rng.integers(0, 256, (5, *SIZE, 3), dtype=np.uint8)
    images[:, -1, -1] = 0  # a PPM file ends in zeros
    return images


@pytest.fixture(params=["png", "ppm", "bmp"])
def paths(images, tmp_path, request):
    paths = [tmp_path / f"{number}.{request.param}" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


def read(dataset):
    views, pixels, labels = [], [], []
    for (view, image), label in dataset.as_numpy_iterator():
        views.append(view)
        pixels.append(image)
        labels.append(label)
    return np.concatenate(views), np.concatenate(pixels), np.concatenate(labels)


def test_pixels_are_those_of_the_files_and_views_their_means(images, paths):
    dataset = view_and_image_dataset(paths, [4, 3, 2, 1, 0], SIZE, VIEW, batch_size=2)
    views, pixels, labels = read(dataset)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, images)
    np.testing.assert_array_equal(labels, [4, 3, 2, 1, 0])
    means = images.reshape(5, 8, 5, 12, 5, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(views, means, atol=1e-3)


def test_nothing_tunes_itself(paths, images):
    # TensorFlow 2.21 may wait for the thread that does, where an epoch ends.
    for dataset in (
        view_and_image_dataset(paths, range(5), SIZE, VIEW, 2),
        view_dataset(ArraySource(images), VIEW, batch_size=2),
        view_dataset(ArraySource(images), VIEW, batch_size=2, shard=(2, 0)),
    ):
        assert dataset.batch(2).options().autotune.enabled is False


def test_shuffles_anew_in_every_epoch_and_alike_for_one_seed(paths):
    def order(seed):
        dataset = view_and_image_dataset(
            paths, range(5), SIZE, VIEW, 2, shuffle_seed=seed
        )
        return [read(dataset)[2].tolist() for _ in range(4)]

    first = order(1)
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in first)
    assert len({tuple(epoch) for epoch in first}) > 1
    assert first == order(1)


def test_views_show_the_augmented_image(images, paths):
    dataset = view_and_image_dataset(
        paths,
        range(5),
        SIZE,
        VIEW,
        batch_size=5,
        augment=lambda image: 300.0 - tf.cast(image[::-1], "float32"),
    )
    views, pixels, _ = read(dataset)
    expected = np.clip(300.0 - images[:, ::-1].astype("float32"), 0, 255)
    np.testing.assert_array_equal(pixels, expected)
    means = expected.reshape(5, 8, 5, 12, 5, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(views, means, atol=1e-3)


@pytest.mark.parametrize(
    ("paths", "labels", "view_size", "message"),
    [
        ([], [], VIEW, "at least one. Received: 0 paths"),
        (["a.png"], [0, 1], VIEW, "1 paths, 2 labels"),
        (
            ["a.png"],
            [0],
            (8, 61),
            r"larger than the image. Received: view_size=\(8, 61",
        ),
    ],
)
def test_refuses(paths, labels, view_size, message):
    with pytest.raises(ValueError, match=message):
        view_and_image_dataset(paths, labels, SIZE, view_size, 1)


class CountingSource(ArraySource):
    """Notes which views are read; image ``broken`` cannot be."""

    broken = None

    def __init__(self, images):
        super().__init__(images)
        self.reads = []

    def read_view(self, index, size):
        self.reads.append(index)
        return super().read_view(index, size)

    def read(self, index, level, origin, size):
        if index == self.broken:
            raise OSError("the scan ends early")
        return super().read(index, level, origin, size)

    def where(self, index):
        return f"/slides/{index}.svs"


@pytest.fixture
def source(rng):
    images = [
        rng.integers(0, 256, (8 * n, 12 * n, 3), dtype=np.uint8) for n in range(3, 10)
    ]
    return CountingSource(images)


def orders(dataset, epochs):
    """Return the numbers of the images in each of several epochs."""
    return [
        np.concatenate([inputs[1] for inputs, *_ in dataset.as_numpy_iterator()])
        for _ in range(epochs)
    ]


def as_lists(epochs):
    return [epoch.tolist() for epoch in epochs]


def test_views_are_those_of_the_source_beside_number_and_label(source):
    labels = np.eye(7, dtype="float64")
    dataset = view_dataset(source, VIEW, labels, batch_size=3)
    assert len(dataset) == 3
    (view, index), label = dataset.element_spec
    assert (view.shape, view.dtype) == ((None, 8, 12, 3), tf.float32)
    assert (index.shape, index.dtype) == ((None,), tf.int32)
    assert (label.shape, label.dtype) == ((None, 7), tf.float64)
    batches = list(dataset.as_numpy_iterator())
    assert [len(index) for (_, index), _ in batches] == [3, 3, 1]
    assert [number for (_, index), _ in batches for number in index] == list(range(7))
    for (views, index), label in batches:
        np.testing.assert_array_equal(label, labels[index])
        for view, number in zip(views, index, strict=True):
            n = number + 3
            image = source.read_patches([number], [(0, 0)], (8 * n, 12 * n))[0]
            means = image.reshape(8, n, 12, n, 3).mean(axis=(1, 3))
            np.testing.assert_allclose(view, means, rtol=1e-6)


def test_a_subset_keeps_numbers_and_labels_of_the_source(source):
    dataset = view_dataset(source, VIEW, np.arange(7) * 10, indices=np.array([6, 1, 6]))
    ((views, index), label), *more = dataset.as_numpy_iterator()
    assert not more
    assert index.tolist() == [6, 1, 6]
    assert label.tolist() == [60, 10, 60]
    np.testing.assert_array_equal(views[1], source.read_view(1, VIEW))


def test_a_seed_gives_the_same_orders_whatever_the_global_seed(source):
    def epochs(seed, global_seed):
        keras.utils.set_random_seed(global_seed)
        dataset = view_dataset(source, 2, batch_size=2, shuffle=True, seed=seed)
        return as_lists(orders(dataset, 3))

    first = epochs(seed=5, global_seed=1)
    assert all(sorted(epoch) == list(range(7)) for epoch in first)
    assert len(set(map(tuple, first))) == 3
    assert epochs(seed=5, global_seed=2) == first
    assert epochs(seed=6, global_seed=1) != first
    assert epochs(seed=None, global_seed=1) == epochs(seed=None, global_seed=1)
    assert epochs(seed=None, global_seed=1) != epochs(seed=None, global_seed=2)


def test_labels_and_views_follow_the_shuffled_numbers(source):
    dataset = view_dataset(source, VIEW, np.arange(7) * 10, 2, shuffle=True, seed=1)
    for (views, index), label in dataset.repeat(2).as_numpy_iterator():
        np.testing.assert_array_equal(label, index * 10)
        for view, number in zip(views, index, strict=True):
            np.testing.assert_array_equal(view, source.read_view(number, VIEW))


@pytest.mark.parametrize("shuffle", [False, True])
def test_workers_share_the_images_and_keep_their_parts(source, shuffle):
    workers = [
        view_dataset(source, 2, batch_size=2, shuffle=shuffle, seed=1, shard=(3, n))
        for n in range(3)
    ]
    epochs = [as_lists(orders(worker, 3)) for worker in workers]
    assert sorted(number for worker in epochs for number in worker[0]) == list(range(7))
    assert [len(worker[0]) for worker in epochs] == [3, 2, 2]
    for worker in epochs:
        assert all(sorted(epoch) == sorted(worker[0]) for epoch in worker)
    policy = tf.data.experimental.AutoShardPolicy.OFF
    options = workers[0].options().experimental_distribute
    assert options.auto_shard_policy == policy


@pytest.mark.parametrize(("cache", "second"), [(None, list(range(7))), ("memory", [])])
def test_reads_each_view_once_an_epoch_or_once(source, cache, second):
    dataset = view_dataset(source, VIEW, batch_size=1, shuffle=True, cache=cache)
    orders(dataset, 1)
    assert sorted(source.reads) == list(range(7))
    source.reads.clear()
    orders(dataset, 1)
    assert sorted(source.reads) == second
    for ((views, index),) in dataset.as_numpy_iterator():
        expected = ArraySource.read_view(source, index[0], VIEW)
        np.testing.assert_array_equal(views[0], expected)


def test_a_broken_image_ends_the_iteration_by_its_name(source):
    source.broken = 4
    message = (
        r"SourceError: /slides/4.svs \(image 4\): rows 0 to 56, columns 0 to 84 "
        "cannot be read: the scan ends early"
    )
    batches = view_dataset(source, VIEW, batch_size=2).as_numpy_iterator()
    assert [next(batches)[0][1].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(tf.errors.UnknownError, match=message):
        next(batches)


def small_model():
    view, index = keras.Input((*VIEW, 3)), keras.Input((), dtype="int32")
    pooled = keras.layers.GlobalAveragePooling2D()(view)
    number = keras.layers.Embedding(7, 2)(index)
    both = keras.layers.Concatenate()([pooled, number])
    model = keras.Model([view, index], keras.layers.Dense(1)(both))
    model.compile(keras.optimizers.SGD(1e-6), "mse")
    return model


def test_trains_evaluates_and_predicts(source):
    model, labels = small_model(), np.linspace(0, 1, 7)
    data = view_dataset(source, VIEW, labels, 3, shuffle=True, seed=0, cache="memory")
    history = model.fit(data, validation_data=data, epochs=3, shuffle=False, verbose=0)
    assert len(source.reads) == 7
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert np.isfinite(model.evaluate(data, verbose=0))
    predicted = model.predict(view_dataset(source, VIEW, batch_size=3), verbose=0)
    views = np.stack([source.read_view(number, VIEW) for number in range(7)])
    expected = model.predict_on_batch([views, np.arange(7)])
    np.testing.assert_allclose(predicted, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"source": ["a.svs"]}, "open_source makes one.*Received: source of"),
        ({"size": 0}, "`size` must be .*Received: size=0"),
        ({"size": (25, 20)}, r"Received: size=\(25, 20\), image 0, 'array 0', of"),
        ({"labels": [0, 1]}, r"7 of them.*Received: labels of shape \(2,\), int64"),
        ({"labels": 3}, r"Received: labels of shape \(\), int64"),
        ({"labels": [["a"]] * 7}, r"Received: labels of shape \(7, 1\), <U1"),
        ({"shuffle": "yes"}, "Received: shuffle='yes'"),
        ({"batch_size": 0}, "Received: batch_size=0"),
        ({"batch_size": 8, "drop_remainder": True}, "Received: batch_size=8, 7 images"),
        ({"shuffle": True, "seed": -1}, "Received: seed=-1"),
        ({"indices": [7]}, "0 to 6. Received: indices from 7 to 7"),
        ({"shard": (2, 2)}, r"Received: shard=\(2, 2\), 7 images"),
        (
            {"cache": "views"},
            "cache=\"memory\". Received: cache='views', source=<Count",
        ),
    ],
)
def test_view_dataset_refuses(source, keywords, message):
    with pytest.raises((TypeError, ValueError), match=message):
        view_dataset(**{"source": source, "size": VIEW, **keywords})


@needs_slide
def test_views_of_a_real_slide(tmp_path):
    pytest.importorskip("openslide")
    from attention_sampling.data import OpenSlideSource

    source = OpenSlideSource(SLIDE)
    height, width, _ = source.shape(0)
    image = source.read_patches([0], [(0, 0)], (height, width))[0]
    (((views, index), label),) = view_dataset(
        source, (height // 20, width // 20), [3], cache=tmp_path
    ).as_numpy_iterator()
    assert (index.tolist(), label.tolist()) == ([0], [3])
    expected = tf.image.resize(image, views.shape[1:3], method="area")
    np.testing.assert_allclose(views[0], expected, atol=0.01)
    assert len(list(tmp_path.iterdir())) == 1


def test_views_in_memory_go_with_their_dataset(monkeypatch):
    """TensorFlow keeps the function that reads them for ever."""
    kept = []

    def note(*arguments):
        reader = view_reader(*arguments)
        kept.append(weakref.ref(reader))
        return reader

    monkeypatch.setattr(views_module, "view_reader", note)
    source = ArraySource(np.zeros((3, 8, 8, 1), "uint8"))
    dataset = view_dataset(source, 4, cache="memory").repeat(2)
    assert len(list(dataset)) == 2
    assert kept[0]() is not None
    del dataset
    gc.collect()
    assert kept[0]() is None


# Which images, in which order


@pytest.mark.parametrize(
    ("indices", "shard", "message"),
    [
        ([], None, r"Received: indices of shape \(0,\)"),
        ([[1]], None, r"Received: indices of shape \(1, 1\), int64"),
        ([1.0], None, r"Received: indices of shape \(1,\), float64"),
        ([True, False], None, r"np.flatnonzero.*Received: .*bool"),
        ([-1, 2], None, "0 to 4. Received: indices from -1 to 2"),
        ([5], None, "0 to 4. Received: indices from 5 to 5"),
        (None, 2, "a pair.*Received: shard=2"),
        (None, (0, 0), r"Received: shard\[0\]=0"),
        (None, (2, -1), r"Received: shard\[1\]=-1"),
        (None, (2, 1.0), r"Received: shard\[1\]=1.0"),
        (None, (2, 2), r"Received: shard=\(2, 2\), 5 images"),
        ([3], (2, 0), r"each needs an image. Received: shard=\(2, 0\), 1 images"),
    ],
)
def test_refuses_images(indices, shard, message):
    with pytest.raises(ValueError, match=message):
        choose_images(5, indices, shard)


@pytest.mark.parametrize("seed", [-1, 0.5, True])
def test_refuses_a_seed(seed):
    with pytest.raises(ValueError, match=f"Received: seed={seed}"):
        image_order(choose_images(5), shuffle=True, seed=seed)


class TestAugment:
    @pytest.fixture
    def images(self, rng):
        return rng.integers(256, size=(6, 24, 24, 3), dtype="uint8")

    def epoch(self, dataset):
        return [
            (view, int(index), int(label))
            for (views, indices), labels in dataset.as_numpy_iterator()
            for view, index, label in zip(views, indices, labels, strict=True)
        ]

    @pytest.mark.parametrize("cache", [None, "memory"])
    @pytest.mark.parametrize(("augment", "variants"), [("flips", 4), ("dihedral", 8)])
    def test_view_and_patches_show_one_picture(self, images, augment, variants, cache):
        source = Dihedral(ArraySource(images))
        dataset = view_dataset(
            source, 24, range(6), shuffle=True, seed=0, augment=augment, cache=cache
        )
        seen = set()
        for _ in range(20):
            epoch = self.epoch(dataset)
            assert sorted(label for _, _, label in epoch) == list(range(6))
            for view, index, label in epoch:
                assert index % 6 == label
                [patch] = source.read_patches([index], [(0, 0)], 24)
                np.testing.assert_array_equal(view, patch)
                seen.add(index // 6)
        assert seen == set(range(variants))

    def test_without_it_images_are_as_they_are(self, images):
        source = Dihedral(ArraySource(images))
        epoch = self.epoch(view_dataset(source, 6, range(6), indices=[4, 1]))
        assert [(index, label) for _, index, label in epoch] == [(4, 4), (1, 1)]

    def test_the_seed_decides(self, images):
        source = Dihedral(ArraySource(images))
        indices = [
            [
                i
                for _, i, _ in self.epoch(
                    view_dataset(source, 6, range(6), seed=s, augment="flips")
                )
            ]
            for s in (0, 0, 1)
        ]
        assert indices[0] == indices[1] != indices[2]

    def test_a_turned_image_must_be_larger_than_its_view_too(self):
        source = Dihedral(ArraySource(np.zeros((2, 20, 40, 1), "uint8")))
        with pytest.raises(ValueError, match=r"size=\(30, 10\), image 0"):
            view_dataset(source, (10, 30), augment="dihedral")
        view_dataset(source, (10, 30), augment="flips")

    def test_needs_a_source_that_turns(self, images):
        with pytest.raises(ValueError, match=r"source = Dihedral\(source\)"):
            view_dataset(ArraySource(images), 6, augment="flips")


def test_labels_of_text_become_indices(tmp_path):
    source = ArraySource(np.zeros((3, 9, 9, 1), "uint8"))
    dataset = view_dataset(source, 3, ["dog", "cat", "dog"])
    assert dataset.class_names == ("cat", "dog")
    [(_, labels)] = dataset
    assert labels.numpy().tolist() == [1, 0, 1]
    label_images(source, ["b", "a", "b"])
    [(_, labels)] = view_dataset(source, 3)
    assert labels.numpy().tolist() == [1, 0, 1]


def test_a_view_that_is_not_finite_names_its_image():
    images = np.zeros((2, 9, 9, 1), "float32")
    images[1, 4, 4] = np.nan
    source = ArraySource(images)
    with pytest.raises(
        SourceError, match=r"array 1 \(image 1\): its view is not finite"
    ):
        source.read_view(1, 3)
