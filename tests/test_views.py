import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from attention_sampling.views import view_and_image_dataset

SIZE, VIEW = (40, 60), (8, 12)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (5, *SIZE, 3), dtype=np.uint8)


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


def test_jpeg_and_grey_files_become_colour(tmp_path):
    Image.fromarray(np.full(SIZE, 77, np.uint8)).save(tmp_path / "grey.jpg")
    dataset = view_and_image_dataset([tmp_path / "grey.jpg"], [0], SIZE, VIEW, 1)
    _, pixels, _ = read(dataset)
    assert pixels.shape == (1, *SIZE, 3)
    np.testing.assert_allclose(pixels, 77, atol=1)


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
