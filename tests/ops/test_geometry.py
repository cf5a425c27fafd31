"""Geometry against exact fractions."""

import keras
import numpy as np
import pytest
import reference
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keras import ops

from attention_sampling.ops.geometry import (
    cell_means,
    window_origins,
    window_origins_by_image,
)

BACKEND = keras.backend.backend()


def origins_of(cells, *sizes, receptive_field=0):
    """Return the origins of a list of flat cells, as a list of [row, column]."""
    origins = window_origins(
        ops.array([cells], "int32"), *sizes, receptive_field=receptive_field
    )
    assert keras.backend.standardize_dtype(origins.dtype) == "int32"
    return ops.convert_to_numpy(origins)[0].tolist()


@pytest.mark.parametrize(
    ("cell", "attention", "low", "high", "patch", "receptive_field", "origin"),
    [
        (12, 25, 100, 1000, 50, 0, 475),
        (0, 25, 100, 1000, 50, 0, -5),
        (0, 100, 100, 1000, 50, 0, -20),
        (55, 1000, 1000, 1000, 50, 0, 30),  # 30.5: half to even
        (56, 1000, 1000, 1000, 50, 0, 32),  # 31.5: half to even
        (0, 1000, 1000, 1000, 2, 0, 0),  # -0.5: half to even
        (0, 1000, 1000, 1000, 4, 0, -2),  # -1.5: half to even
        (0, 1, 10, 10, 10, 0, 0),  # one cell: the window is centred
        (0, 1, 10, 10, 4, 2, 3),  # the border is lost at both sides
        (0, 92, 100, 1000, 50, 8, 20),  # 40 + 5 - 25
        (91, 92, 100, 1000, 50, 8, 930),  # 1000 - 40 - 5 - 25
    ],
)
def test_checks_of_the_design(
    cell, attention, low, high, patch, receptive_field, origin
):
    assert (
        reference.window_origin(cell, attention, low, high, patch, receptive_field)
        == origin
    )
    rows = origins_of(
        [cell], (attention, 1), (low, 64), (high, 64), (patch, 64),
        receptive_field=receptive_field,
    )  # fmt: skip
    assert rows[0][0] == origin
    columns = origins_of(
        [cell], (1, attention), (64, low), (64, high), (64, patch),
        receptive_field=receptive_field,
    )  # fmt: skip
    assert columns[0][1] == origin


def test_rows_come_before_columns():
    """Cell 7 of 3 x 5 is row 1, column 2."""
    assert origins_of([7], (3, 5), (30, 50), (300, 500), (100, 100)) == [[100, 200]]


@st.composite
def geometries(draw):
    """Draw sizes of both axes up to 300,000 pixels, and some cells."""
    receptive_field = draw(st.integers(0, 99))
    axes = []
    for _ in range(2):
        low = draw(st.integers(receptive_field + 1, 3000))
        attention = draw(st.integers(1, low))
        high = draw(st.integers(1, 300_000))
        patch = draw(st.integers(1, 1000))
        axes.append((attention, low, high, patch))
    last = axes[0][0] * axes[1][0] - 1
    cells = draw(st.lists(st.integers(0, last), min_size=5, max_size=5))
    return *zip(*axes, strict=True), cells, receptive_field


def exact_origins(attention, low, high, patch, cells, receptive_field):
    sizes = list(zip(attention, low, high, patch, strict=True))
    return [
        [
            reference.window_origin(cell // attention[1], *sizes[0], receptive_field),
            reference.window_origin(cell % attention[1], *sizes[1], receptive_field),
        ]
        for cell in cells
    ]


@settings(max_examples=60, deadline=None)
@given(geometries())
@example(((3000, 1), (3000, 1), (300_000, 1), (1, 1), [0, 1, 2, 3, 2999], 0))
@example(((3000, 2), (3000, 2), (299_999, 3), (2, 2), [0, 1, 2, 3, 5999], 0))
def test_origins_are_exact(geometry):
    attention, low, high, patch, cells, receptive_field = geometry
    origins = origins_of(
        cells, attention, low, high, patch, receptive_field=receptive_field
    )
    assert origins == exact_origins(*geometry)


def test_origins_are_exact_at_the_size_of_the_image():
    """A view and an attention map as large as an image of 300,000 pixels."""
    geometry = (
        (300_000, 1), (300_000, 1), (300_000, 1), (51, 1), [0, 1, 149_999, 299_999], 0
    )  # fmt: skip
    attention, low, high, patch, cells, _ = geometry
    assert origins_of(cells, attention, low, high, patch) == exact_origins(*geometry)


class TestByImage:
    """In NumPy, of images of different sizes."""

    @settings(max_examples=60, deadline=None)
    @given(
        geometries(), st.lists(st.tuples(*[st.integers(1, 300_000)] * 2), max_size=3)
    )
    @example(((3000, 2), (3000, 2), (299_999, 3), (2, 2), [0, 1, 2, 3, 5999], 0), [])
    def test_origins_are_exact_in_every_image(self, geometry, others):
        attention, low, high, patch, cells, receptive_field = geometry
        sizes = [high, *others]
        origins = window_origins_by_image(
            np.array([cells] * len(sizes), "int32"),
            attention, low, np.array(sizes, "int32"), patch, receptive_field,
        )  # fmt: skip
        assert origins.dtype == np.int32
        assert origins.tolist() == [
            exact_origins(attention, low, size, patch, cells, receptive_field)
            for size in sizes
        ]

    def test_every_sample_has_its_own_cells_and_size(self):
        origins = window_origins_by_image(
            np.array([[1], [2]]), (2, 2), (8, 8), np.array([(80, 40), (8, 800)]), (4, 4)
        )
        assert origins.tolist() == [[[18, 28]], [[4, 198]]]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="sizes unknown before the graph runs occur on TensorFlow only",
)
class TestUnknownSizes:
    @settings(max_examples=40, deadline=None)
    @given(geometries())
    def test_origins_are_exact(self, geometry):
        import tensorflow as tf

        attention, low, high, patch, cells, receptive_field = geometry
        scalars = [*attention, *low, *high, *patch, receptive_field]
        origins = self.graph()(
            tf.constant([cells]), *(tf.constant(scalar) for scalar in scalars)
        )
        assert origins.dtype == tf.int32
        assert origins.numpy()[0].tolist() == exact_origins(*geometry)

    @staticmethod
    def graph(compiled=[]):  # noqa: B006
        """Return one function for all sizes, compiled once."""
        import tensorflow as tf

        if not compiled:

            @tf.function(
                input_signature=[tf.TensorSpec([1, None], tf.int32)]
                + [tf.TensorSpec([], tf.int32)] * 9
            )
            def graph(cells, a0, a1, l0, l1, h0, h1, p0, p1, receptive_field):
                wide = [tf.cast(x, tf.int64) for x in (p0, p1, receptive_field)]
                return window_origins(
                    cells, (a0, a1), (l0, l1), (h0, h1), wide[:2], wide[2]
                )

            compiled.append(graph)
        return compiled[0]

    @pytest.mark.parametrize("jit_compile", [False, True])
    def test_halves_go_to_even_in_a_graph(self, jit_compile):
        import tensorflow as tf

        @tf.function(jit_compile=jit_compile)
        def graph(attention):
            rows, columns = tf.shape(attention)[1], tf.shape(attention)[2]
            cells = tf.constant([[55, 56, 0]])
            return window_origins(cells, (columns, rows), (1000, 1), (1000, 1), (50, 1))

        origins = graph(tf.zeros((1, 1, 1000)))
        assert origins.numpy()[0, :, 0].tolist() == [30, 32, -24]


def exact_cell_means(values, attention_size, low_size, receptive_field=0):
    """Return the mean over each cell of one image, first down and then across."""
    down = [
        reference.cell_mean(column, attention_size[0], low_size[0], receptive_field)
        for column in np.transpose(values)
    ]
    return np.array(
        [
            reference.cell_mean(row, attention_size[1], low_size[1], receptive_field)
            for row in np.transpose(down)
        ]
    )


@st.composite
def coverings(draw):
    """Draw values that cover a view, and a map with its border."""
    receptive_field = draw(st.integers(0, 9))
    axes = []
    for _ in range(2):
        low = draw(st.integers(receptive_field + 1, 40))
        attention = draw(st.integers(1, low))
        # Values with the size of the map are its cells; that has a test of its own.
        extent = draw(st.integers(1, 50).filter(lambda n, a=attention: n != a))
        axes.append((extent, attention, low))
    return *zip(*axes, strict=True), receptive_field


class TestCellMeans:
    def means(self, values, *sizes, receptive_field=0):
        means = cell_means(
            ops.array(values, "float32"), *sizes, receptive_field=receptive_field
        )
        return ops.convert_to_numpy(means)

    # JAX compiles every new size.
    @settings(max_examples=40 if BACKEND != "jax" else 4, deadline=None)
    @given(coverings())
    @example(((10, 9), (4, 4), (10, 9), 0))  # cells of two and a half pixels
    @example(((1, 50), (8, 8), (16, 16), 3))
    def test_are_exact(self, covering):
        extent, attention, low, receptive_field = covering
        values = np.random.default_rng(0).uniform(size=extent)
        means = self.means(
            values[None], attention, low, receptive_field=receptive_field
        )
        assert means.shape == (1, *attention)
        expected = exact_cell_means(values, attention, low, receptive_field)
        np.testing.assert_allclose(means[0], expected, rtol=1e-3, atol=1e-4)

    def test_every_sample_has_its_own(self, rng):
        values = rng.uniform(size=(3, 12, 10))
        means = self.means(values, (5, 4), (24, 20), receptive_field=3)
        for sample in range(3):
            expected = exact_cell_means(values[sample], (5, 4), (24, 20), 3)
            np.testing.assert_allclose(means[sample], expected, rtol=1e-5)

    @pytest.mark.parametrize("receptive_field", [0, 3])
    def test_values_of_the_size_of_the_map_are_its_cells(self, receptive_field, rng):
        """Also where the map leaves a border of the view out."""
        values = rng.uniform(size=(2, 5, 6)).astype("float32")
        means = self.means(values, (5, 6), (13, 15), receptive_field=receptive_field)
        np.testing.assert_array_equal(means, values)

    def test_the_border_of_the_receptive_field_does_not_count(self):
        """Four pixels of ten, two at each side, and three cells of two between."""
        values = np.array([[[9.0, 9, 1, 3, 5, 7, 2, 4, 9, 9]]])
        means = self.means(values, (1, 3), (1, 10), receptive_field=0)
        assert means.shape == (1, 1, 3)
        column = np.transpose(values, (0, 2, 1))
        means = self.means(column, (3, 1), (10, 5), receptive_field=4)
        np.testing.assert_allclose(means[0, :, 0], [2, 6, 3], rtol=1e-6)

    def test_of_a_large_map(self):
        """Three thousand cells, as far as float32 goes."""
        values = np.linspace(0, 1, 3000)[None, None]
        means = self.means(values, (1, 1500), (1, 3000))
        expected = values.reshape(1500, 2).mean(axis=1)
        np.testing.assert_allclose(means[0, 0], expected, atol=1e-6)
        means = self.means(values, (1, 997), (1, 3000))
        expected = reference.cell_mean(values[0, 0], 997, 3000)
        np.testing.assert_allclose(means[0, 0], expected, atol=1e-5)

    @pytest.mark.skipif(
        keras.backend.backend() != "tensorflow",
        reason="sizes unknown before the graph runs occur on TensorFlow only",
    )
    @pytest.mark.parametrize(
        ("saliency", "cells", "receptive_field"),
        [(None, None, 0), (None, 5, 2), (12, None, 2), (12, 5, 0), (5, None, 2)],
    )
    def test_sizes_unknown_before_the_graph_runs(
        self, saliency, cells, receptive_field, rng
    ):
        import tensorflow as tf

        @tf.function(
            input_signature=[
                tf.TensorSpec([None, saliency, saliency]),
                tf.TensorSpec([None, cells, cells]),
                tf.TensorSpec([None, None, None, 1]),
            ],
            autograph=False,
        )
        def graph(values, attention, x_low):
            attention_size = tuple(ops.shape(attention)[1:])
            low_size = tuple(ops.shape(x_low)[1:3])
            return cell_means(values, attention_size, low_size, receptive_field)

        extent = saliency or 7
        values = rng.uniform(size=(2, extent, extent)).astype("float32")
        means = graph(values, np.zeros((2, 5, 5), "float32"), np.zeros((2, 12, 12, 1)))
        expected = values
        if extent != 5:
            expected = [
                exact_cell_means(v, (5, 5), (12,) * 2, receptive_field) for v in values
            ]
        np.testing.assert_allclose(means.numpy(), expected, rtol=1e-4)
