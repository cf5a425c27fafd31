"""Drawing cells: distinct, with the right probabilities, and repeatable."""

import keras
import numpy as np
import pytest
import reference
from gradients import value_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from attention_sampling.ops import sampling
from attention_sampling.ops.sampling import mix_proposal, sample_cells, top_cells

MODES = [
    pytest.param(True, id="with replacement"),
    pytest.param(False, id="without replacement"),
]


def draw(attention, n_patches, replace=False, seed=0):
    attention = ops.array(attention, "float32")
    return ops.convert_to_numpy(sample_cells(attention, n_patches, replace, seed=seed))


def repeat(attention, samples):
    return np.broadcast_to(np.array(attention), (samples, len(attention)))


def numbers_of(draws, cells):
    """Return one number for each ordered draw."""
    return draws @ cells ** np.arange(draws.shape[1])


def statistic_of(drawn, attention, n_patches, replace):
    """Return chi-square of drawn cells against the exact probabilities."""
    cells = len(attention)
    draws, probabilities = reference.ordered_draws(attention, n_patches, replace)
    counts = np.bincount(
        numbers_of(drawn.astype("int64"), cells), minlength=cells**n_patches
    )
    observed = counts[numbers_of(draws.astype("int64"), cells)]
    assert observed.sum() == len(drawn)
    return reference.chi_square(observed, probabilities * len(drawn))


@pytest.mark.parametrize("replace", MODES)
@pytest.mark.parametrize("n_patches", [1, 2, 3])
@pytest.mark.parametrize(
    "attention",
    [[0.25, 0.25, 0.25, 0.25], [0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]],
    ids=["flat", "uneven", "peaked"],
)
def test_frequencies_of_ordered_draws_are_exact(attention, n_patches, replace):
    drawn = draw(repeat(attention, 60_000), n_patches, replace)
    statistic, limit = statistic_of(drawn, attention, n_patches, replace)
    assert statistic < limit


def test_chi_square_sees_a_small_bias():
    """The power of the test above: attention off by a fiftieth is found."""
    drawn = draw(repeat([0.11, 0.19, 0.3, 0.4], 60_000), 2)
    statistic, limit = statistic_of(drawn, [0.1, 0.2, 0.3, 0.4], 2, replace=False)
    assert statistic > limit


@pytest.mark.parametrize("replace", MODES)
def test_attention_need_not_sum_to_one(replace):
    attention = np.array([0.1, 0.2, 0.3, 0.4])
    for factor in (1e-12, 7.0, 1e12):
        drawn = draw(repeat(attention * factor, 60_000), 2, replace)
        statistic, limit = statistic_of(drawn, attention, 2, replace)
        assert statistic < limit


@pytest.mark.parametrize("cells", [5, 40])
def test_draws_without_replacement_are_distinct(cells, rng):
    drawn = draw(rng.dirichlet(np.ones(cells), size=500), 5)
    assert np.all(np.diff(np.sort(drawn, axis=1), axis=1) > 0)


def test_draws_with_replacement_repeat():
    drawn = draw(repeat([0.5, 0.5], 100), 5, replace=True)
    assert drawn.shape == (100, 5)
    assert set(drawn.ravel()) == {0, 1}


@pytest.mark.parametrize("replace", MODES)
def test_a_cell_of_zero_attention_is_never_drawn(replace):
    attention = [0.0, 0.5, 0.0, 0.3, 0.2, 0.0]
    drawn = draw(repeat(attention, 20_000), 3, replace)
    assert set(drawn.ravel()) == {1, 3, 4}


def test_zero_attention_comes_last_when_nothing_else_is_left():
    drawn = draw(repeat([0.0, 0.5, 0.0, 0.5], 1000), 4)
    assert {frozenset(row) for row in drawn[:, :2]} == {frozenset({1, 3})}
    assert {frozenset(row) for row in drawn[:, 2:]} == {frozenset({0, 2})}


def test_tiny_attention_is_drawn_before_zero():
    drawn = draw(repeat([0.0, 1.0, 1e-30, 0.0], 1000), 2)
    np.testing.assert_array_equal(drawn, repeat([1, 2], 1000))


@pytest.mark.parametrize("replace", MODES)
def test_a_cell_of_nan_attention_is_always_drawn(replace):
    attention = np.full((200, 50), 0.02)
    attention[:, 37] = np.nan
    drawn = draw(attention, 3, replace)
    assert np.all((drawn == 37).any(axis=1))


@pytest.mark.parametrize("replace", MODES)
@pytest.mark.parametrize("attention", [np.nan, 0.0])
def test_attention_without_any_mass_stays_in_range(attention, replace):
    drawn = draw(np.full((3, 7), attention), 4, replace)
    assert drawn.min() >= 0
    assert drawn.max() < 7


@pytest.mark.parametrize("replace", MODES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_attention(dtype, replace):
    attention = ops.cast(ops.array(repeat([0.0, 0.25, 0.75], 20_000)), dtype)
    drawn = ops.convert_to_numpy(sample_cells(attention, 2, replace, seed=0))
    statistic, limit = reference.chi_square(
        np.bincount(drawn[:, 0], minlength=3)[1:], [5_000, 15_000]
    )
    assert statistic < limit


def test_dtype_and_shape():
    cells = sample_cells(ops.full((2, 9), 1 / 9), 4, seed=0)
    assert keras.backend.standardize_dtype(cells.dtype) == "int32"
    assert tuple(cells.shape) == (2, 4)


@pytest.mark.parametrize("replace", MODES)
def test_samples_of_a_batch_draw_for_themselves(replace):
    drawn = draw(np.full((50, 1000), 1e-3), 3, replace)
    assert len(np.unique(drawn, axis=0)) == 50


@pytest.mark.parametrize("replace", MODES)
def test_same_seed_same_draws_and_each_call_others(replace):
    attention = np.full((2, 1000), 1e-3)
    one = keras.random.SeedGenerator(5)
    two = keras.random.SeedGenerator(5)
    first = [draw(attention, 5, replace, seed=one) for _ in range(3)]
    second = [draw(attention, 5, replace, seed=two) for _ in range(3)]
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(np.reshape(first, (3, -1)), axis=0)) == 3
    other = draw(attention, 5, replace, seed=keras.random.SeedGenerator(6))
    assert not np.array_equal(other, first[0])


def ties_of_the_first_draws(draw, n_patches, monkeypatch):
    """Count equal neighbours among the sorted keys of the cells that are drawn."""
    sorted_keys = []
    sort = ops.top_k

    def top_k(keys, k):
        values, indices = sort(keys, k)
        sorted_keys.append(ops.convert_to_numpy(values))
        return values, indices

    with monkeypatch.context() as patch:
        patch.setattr(ops, "top_k", top_k)
        draw(n_patches)
    return np.count_nonzero(np.diff(sorted_keys[-1][0]) == 0)


@pytest.mark.parametrize(
    "seed",
    [lambda: 0, lambda: keras.random.SeedGenerator(0)],
    ids=["int", "SeedGenerator"],
)
def test_a_million_equal_cells_do_not_tie(seed, monkeypatch):
    """Ties would go to the first cells, a bias: every draw has a key of its own."""
    cells = 10**6

    def of_the_package(n_patches):
        draw(np.full((1, cells), 1 / cells), n_patches, seed=seed())

    assert ties_of_the_first_draws(of_the_package, 1000, monkeypatch) < 5


def test_one_uniform_a_cell_would_tie(monkeypatch):
    """The power of the test above: one uniform has steps of 2**-24 or wider."""
    cells = 10**6

    def of_one_uniform(n_patches):
        uniform = keras.random.uniform((1, cells), seed=0)
        keys = -ops.log(-ops.log(ops.clip(uniform, 1e-30, 1.0 - 2.0**-24)))
        ops.top_k(keys, n_patches)

    assert ties_of_the_first_draws(of_one_uniform, 1000, monkeypatch) > 15


def test_a_million_equal_cells_are_drawn_evenly():
    cells, n_patches = 10**6, 20_000
    drawn = draw(np.full((1, cells), 1 / cells), n_patches)[0]
    counts = np.bincount(drawn // (cells // 50), minlength=50)
    statistic, limit = reference.chi_square(counts, np.full(50, n_patches / 50))
    assert statistic < limit


class TestBlocks:
    """Large maps: clocks for blocks of cells, then for the cells of the first ones."""

    @pytest.fixture(params=[3] if keras.backend.backend() == "jax" else [2, 3])
    def size(self, request, monkeypatch):
        """Take blocks of so many cells, however small the map is."""
        monkeypatch.setattr(sampling, "_block_size", lambda *_: request.param)
        return request.param

    @pytest.mark.parametrize(
        ("n_patches", "scale"), [(1, 1.0), (2, 1e-30), (2, 1e12), (3, 1.0)]
    )
    def test_frequencies_of_ordered_draws_are_exact(self, n_patches, scale, size):
        attention = np.array([0.04, 0.3, 0.06, 0.1, 0.3, 0.2])
        if n_patches == 3 == size:  # more cells, for a block for each patch
            attention = np.append(attention / 2, [0.2, 0.1, 0.2])
        drawn = draw(repeat(scale * attention, 60_000), n_patches)
        statistic, limit = statistic_of(drawn, attention, n_patches, replace=False)
        assert statistic < limit

    def test_cells_inside_a_block_are_drawn_anew_in_every_call(self, size):
        seed = keras.random.SeedGenerator(0)
        attention = keras.ops.ones((1, size))  # one block
        drawn = {
            int(sampling.sample_cells(attention, 1, seed=seed)[0, 0]) for _ in range(40)
        }
        assert drawn == set(range(size))

    def test_a_cell_of_zero_attention_is_never_drawn(self, size):
        attention = [0.0, 0.0, 0.0, 0.5, 0.0, 0.3, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0]
        drawn = draw(repeat(attention, 20_000), 3)
        assert set(drawn.ravel()) == {3, 5, 6}

    @pytest.mark.parametrize("cells", [[11], [0, 11], [4, 5]])
    def test_zero_attention_comes_last_when_nothing_else_is_left(self, cells, size):
        attention = np.zeros(12)
        attention[cells] = 1 / len(cells)
        drawn = draw(repeat(attention, 1000), 4)
        first, rest = drawn[:, : len(cells)], drawn[:, len(cells) :]
        assert {frozenset(row) for row in first} == {frozenset(cells)}
        assert not set(rest.ravel()) & set(cells)
        assert rest.min() >= 0
        assert rest.max() < 12
        assert np.all(np.diff(np.sort(drawn, axis=1), axis=1) > 0)

    @pytest.mark.parametrize("tiny", [1e-30, 1e-37])
    def test_tiny_attention_is_drawn_before_zero(self, tiny, size):
        for cell in (4, 6, 11):  # in the block of the largest, beside it, far away
            attention = np.zeros(12)
            attention[[5, cell]] = 1.0, tiny
            drawn = draw(repeat(attention, 1000), 2)
            np.testing.assert_array_equal(drawn, repeat([5, cell], 1000))

    @pytest.mark.parametrize("broken", [[7], [6, 7], [0, 11], [6, 7, 8]])
    @pytest.mark.parametrize("whole", [0.0, 0.1])
    def test_cells_of_nan_attention_are_always_drawn(self, broken, whole, size):
        attention = np.full(12, whole)
        attention[broken] = np.nan
        drawn = draw(repeat(attention, 500), 3)
        assert {frozenset(row) for row in drawn[:, : len(broken)]} == {
            frozenset(broken)
        }
        assert np.all(np.diff(np.sort(drawn, axis=1), axis=1) > 0)

    def test_after_nan_the_others_are_drawn_by_their_attention(self, size):
        attention = [np.nan, 0.1, 0.2, 0.3, 0.4, 0.0]
        drawn = draw(repeat(attention, 60_000), 2)
        np.testing.assert_array_equal(drawn[:, 0], 0)
        counts = np.bincount(drawn[:, 1], minlength=6)
        assert counts[0] == counts[5] == 0
        statistic, limit = reference.chi_square(
            counts[1:5], 60_000 * np.array([0.1, 0.2, 0.3, 0.4])
        )
        assert statistic < limit

    @pytest.mark.parametrize("attention", [np.nan, np.inf, 0.0])
    def test_attention_without_a_finite_mass_gives_distinct_cells(
        self, attention, size
    ):
        drawn = draw(np.full((3, 12), attention), 4)
        assert drawn.min() >= 0
        assert drawn.max() < 12
        assert np.all(np.diff(np.sort(drawn, axis=1), axis=1) > 0)

    @pytest.mark.parametrize(
        ("n_cells", "n_patches", "size"),
        [
            (10_000, 10, 20),  # 500 + 400 clocks
            (32_400, 10, 40),
            (173**2, 10, 173),
            (9973, 10, 1),  # prime
            (10_000, 1000, 2),
            (10_000, 6000, 1),  # as many blocks as patches
            (4, 4, 1),
            (4, 5, 1),
        ],
    )
    def test_size_that_sets_the_fewest_clocks(self, n_cells, n_patches, size):
        assert sampling._block_size(n_cells, n_patches) == size

    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 3000), st.integers(1, 256))
    def test_blocks_hold_all_cells_and_are_enough(self, n_cells, n_patches):
        n_patches = min(n_patches, n_cells)
        size = sampling._block_size(n_cells, n_patches)
        assert n_cells % size == 0
        assert n_cells // size >= n_patches

    @pytest.mark.parametrize("n_patches", [1, 40, 256])
    def test_of_a_large_map_are_distinct_cells_of_each_sample(self, n_patches, rng):
        n_cells = 10_000
        assert n_patches == 256 or sampling._block_size(n_cells, n_patches) > 1
        attention = np.zeros((5, n_cells))
        some = np.stack([rng.permutation(n_cells)[: n_patches + 5] for _ in attention])
        np.put_along_axis(attention, some, rng.uniform(size=some.shape), axis=1)
        drawn = draw(attention, n_patches)
        assert np.all(np.diff(np.sort(drawn, axis=1), axis=1) > 0)
        for row, cells in zip(drawn, some, strict=True):
            assert set(row) <= set(cells)


class _Draw(keras.layers.Layer):
    """Cells in a compiled function, whose random numbers are a state."""

    def __init__(self, n_patches):
        super().__init__()
        self.n_patches = n_patches
        self.seed_generator = keras.random.SeedGenerator(0)

    def call(self, attention):
        return sample_cells(attention, self.n_patches, seed=self.seed_generator)


@pytest.mark.parametrize(
    ("n_cells", "jit_compile"), [(200, True), (200, False), (None, False)]
)
def test_compiled_for_any_batch(n_cells, jit_compile):
    if jit_compile and keras.backend.backend() == "torch":
        pytest.skip("torch.compile takes long, and the package does without")
    assert sampling._block_size(200, 2) > 1
    cells = [0, 99, 198]
    attention = np.zeros((1000, 200), "float32")
    attention[:, cells] = 0.2, 0.3, 0.5
    model = keras.Sequential([keras.Input((n_cells,)), _Draw(2)])
    model.compile(jit_compile=jit_compile)
    batches = [1000] if jit_compile else [1000, 700]
    drawn = [model.predict_on_batch(attention[:batch]) for batch in batches]
    drawn = np.concatenate(drawn)
    assert drawn.shape == (sum(batches), 2)
    # Numbered again from 0, for the exact probabilities.
    assert set(drawn.ravel()) == set(cells)
    statistic, limit = statistic_of(drawn // 99, [0.2, 0.3, 0.5], 2, replace=False)
    assert statistic < limit


class TestTopCells:
    def test_are_in_falling_order(self, rng):
        attention = rng.dirichlet(np.ones(30), size=10).astype("float32")
        cells = top_cells(ops.array(attention), 7)
        assert keras.backend.standardize_dtype(cells.dtype) == "int32"
        expected = np.argsort(-attention, axis=1)[:, :7]
        np.testing.assert_array_equal(ops.convert_to_numpy(cells), expected)

    def test_nan_is_the_most(self):
        """A broken attention network shows in the prediction."""
        attention = [[0.1, 0.2, np.nan, 0.7], [0.1, 0.2, 0.0, 0.7]]
        cells = ops.convert_to_numpy(top_cells(ops.array(attention, "float32"), 2))
        assert cells.tolist() == [[2, 3], [3, 1]]

    @pytest.mark.parametrize("attention", [0.0, 0.25, np.nan])
    def test_ties_are_different_cells(self, attention):
        cells = ops.convert_to_numpy(top_cells(ops.full((3, 9), attention), 4))
        assert cells.min() >= 0
        assert cells.max() < 9
        assert all(len(set(row)) == 4 for row in cells)
        np.testing.assert_array_equal(cells[0], cells[1])

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision(self, dtype):
        attention = ops.cast(ops.array([[0.125, 0.5, 0.25, 0.0]]), dtype)
        cells = ops.convert_to_numpy(top_cells(attention, 3))
        assert cells.tolist() == [[1, 2, 0]]


class TestMixProposal:
    def mixed(self, attention, saliency, mix):
        proposal = mix_proposal(
            ops.array(attention, "float32"), ops.array(saliency, "float32"), mix
        )
        return ops.convert_to_numpy(proposal)

    @pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    def test_is_the_reference_whatever_the_scale(self, scale, mix, rng):
        attention = rng.dirichlet(np.ones(50), size=4)
        saliency = rng.gamma(0.2, size=(4, 50))
        expected = [
            reference.proposal(a, s, mix)
            for a, s in zip(attention, saliency, strict=True)
        ]
        proposal = self.mixed(attention, scale * saliency, mix)
        np.testing.assert_allclose(proposal, expected, rtol=1e-4, atol=1e-9)

    def test_the_mix_may_be_a_variable(self):
        mix = keras.Variable(0.5)
        attention, saliency = [[0.5, 0.5]], [[0.0, 10.0]]
        half = self.mixed(attention, saliency, mix)
        np.testing.assert_allclose(half, [[0.25248, 0.74752]], rtol=1e-4)
        mix.assign(0.0)
        np.testing.assert_array_equal(self.mixed(attention, saliency, mix), attention)

    @pytest.mark.parametrize("mix", [0.5, 1.0])
    def test_where_nothing_is_salient_it_is_the_attention(self, mix, rng):
        """A blank view, and one that is salient alike everywhere."""
        attention = rng.dirichlet(np.ones(20), size=3)
        for saliency in (0.0, 7.0, -1.0):
            proposal = self.mixed(attention, np.full((3, 20), saliency), mix)
            np.testing.assert_allclose(proposal, attention, rtol=1e-5)

    def test_negative_saliency_is_none(self, rng):
        attention = rng.dirichlet(np.ones(20), size=3)
        saliency = rng.normal(size=(3, 20))
        np.testing.assert_array_equal(
            self.mixed(attention, saliency, 0.5),
            self.mixed(attention, np.maximum(saliency, 0), 0.5),
        )

    @pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
    def test_a_cell_without_attention_is_never_proposed(self, mix):
        attention = [[0.0, 0.5, 0.0, 0.5]]
        proposal = self.mixed(attention, [[100.0, 0.0, 1.0, 1.0]], mix)
        np.testing.assert_array_equal(proposal[0, [0, 2]], 0)

    @pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
    def test_a_cell_with_attention_may_be_drawn_without_saliency(self, mix):
        """So that its weight a / q has a bound: below the share kept for it."""
        saliency = np.zeros((1, 1000))
        saliency[0, 0] = 1.0
        attention = np.full((1, 1000), 1e-3)
        proposal = self.mixed(attention, saliency, mix)
        assert np.max(attention / proposal) < 110

    def test_is_a_constant_for_the_gradient(self, rng):
        inputs = [rng.dirichlet(np.ones(9), size=2), rng.uniform(size=(2, 9))]
        _, gradients = value_and_gradients(
            lambda a, s: mix_proposal(a, s, 0.5), [x.astype("float32") for x in inputs]
        )
        for gradient in gradients:
            np.testing.assert_array_equal(gradient, 0)

    def test_keeps_the_dtype_of_the_attention(self):
        saliency = ops.ones((2, 4), dtype="float16")
        proposal = mix_proposal(ops.full((2, 4), 0.25), saliency, 0.5)
        assert keras.backend.standardize_dtype(proposal.dtype) == "float32"
