"""SamplePatches: the right places, repeatable draws, proposals, and its checks."""

import keras
import numpy as np
import pytest
import reference
from gradients import value_and_gradients
from keras import ops

from attention_sampling import SamplePatches


def peaked_map(rows, columns, *cells):
    """Return attention maps, (samples, rows, columns), each with one sure cell."""
    attention = np.zeros((len(cells), rows * columns), "float32")
    attention[np.arange(len(cells)), cells] = 1
    return attention.reshape(-1, rows, columns)


def inputs_of(samples=2, low=10, high=40, rows=5, columns=4, dtype="float32"):
    """Return views, images without a zero and attention, as numpy arrays."""
    rng = np.random.default_rng(3)
    attention = rng.dirichlet(np.ones(rows * columns), size=samples)
    return [
        np.zeros((samples, low, low, 3), "float32"),
        rng.integers(1, 256, size=(samples, high, high, 3)).astype(dtype),
        attention.reshape(samples, rows, columns).astype("float32"),
    ]


def tensors(arrays):
    return [ops.convert_to_tensor(array) for array in arrays]


def numpy(tensors):
    return [ops.convert_to_numpy(tensor) for tensor in tensors]


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_patches_lie_where_the_geometry_says(dtype, replace):
    """The drawn cell, its window and its pixels, all from the outside."""
    inputs = inputs_of(dtype=dtype)
    inputs[2] = peaked_map(5, 4, 7, 18)
    layer = SamplePatches(
        2 if replace else 1,
        (6, 9),
        receptive_field=2,
        replace=replace,
        return_origins=True,
    )
    patches, attention, origins = layer(tensors(inputs))
    assert keras.backend.standardize_dtype(patches.dtype) == dtype
    patches, attention, origins = numpy([patches, attention, origins])
    np.testing.assert_array_equal(attention, 1)
    for sample, cell in enumerate([7, 18]):
        expected = (
            reference.window_origin(cell // 4, 5, 10, 40, 6, receptive_field=2),
            reference.window_origin(cell % 4, 4, 10, 40, 9, receptive_field=2),
        )
        for patch, origin in zip(patches[sample], origins[sample], strict=True):
            assert tuple(origin) == expected
            np.testing.assert_array_equal(
                patch, reference.window(inputs[1][sample], expected, (6, 9))
            )


def test_sampled_attention_is_that_of_the_drawn_cells():
    """Cells of a map as large as the view are told apart by their origins."""
    rng = np.random.default_rng(0)
    attention = rng.dirichlet(np.ones(48), size=3).reshape(3, 6, 8).astype("float32")
    images = rng.uniform(size=(3, 6, 8, 1)).astype("float32")
    layer = SamplePatches(20, 1, return_origins=True)
    patches, sampled, origins = numpy(layer(tensors([images, images, attention])))
    for sample in range(3):
        rows, columns = origins[sample].T
        np.testing.assert_array_equal(sampled[sample], attention[sample, rows, columns])
        np.testing.assert_array_equal(
            patches[sample, :, 0, 0], images[sample, rows, columns]
        )
        assert len(set(zip(rows, columns, strict=True))) == 20


def test_logits_give_the_same_draws_and_probabilities():
    inputs = inputs_of()
    of_attention = SamplePatches(3, 5, seed=4)(tensors(inputs))
    inputs[2] = np.log(inputs[2]) + 3
    of_logits = SamplePatches(3, 5, seed=4, use_logits=True)(tensors(inputs))
    np.testing.assert_array_equal(*numpy([of_attention[0], of_logits[0]]))
    np.testing.assert_allclose(*numpy([of_attention[1], of_logits[1]]), rtol=1e-4)


@pytest.mark.parametrize("use_logits", [False, True])
@pytest.mark.parametrize("replace", [False, True])
def test_gradient_reaches_the_drawn_cells_of_the_map(replace, use_logits):
    x_low, x_high, attention = inputs_of(samples=1)
    layer = SamplePatches(3, 1, replace=replace, use_logits=use_logits, seed=0)
    value, (gradient,) = value_and_gradients(
        lambda a: layer([ops.array(x_low), ops.array(x_high), a])[1], [attention]
    )
    if use_logits:
        assert np.count_nonzero(gradient) == 20
        assert gradient.sum() == pytest.approx(0, abs=1e-6)
    else:
        drawn = np.isin(attention, value)
        assert np.count_nonzero(drawn) == len(np.unique(value))
        assert gradient.sum() == pytest.approx(3)
        np.testing.assert_array_equal(gradient != 0, drawn)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_attention_gives_float32(dtype):
    x_low, x_high, attention = tensors(inputs_of())
    _, sampled = SamplePatches(3, 5)([x_low, x_high, ops.cast(attention, dtype)])
    assert keras.backend.standardize_dtype(sampled.dtype) == "float32"


def test_same_seed_same_patches_and_each_call_others():
    inputs = tensors(inputs_of())
    one, two = SamplePatches(4, 5, seed=9), SamplePatches(4, 5, seed=9)
    first = [numpy(one(inputs))[1] for _ in range(3)]
    second = [numpy(two(inputs))[1] for _ in range(3)]
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(np.reshape(first, (3, -1)), axis=0)) == 3
    other = numpy(SamplePatches(4, 5, seed=10)(inputs))[1]
    assert not np.array_equal(other, first[0])


def test_one_cell_and_one_pixel():
    inputs = inputs_of(samples=1, low=1, high=1, rows=1, columns=1)
    patches, attention = numpy(SamplePatches(1, 1)(tensors(inputs)))
    np.testing.assert_array_equal(patches[0, 0, 0, 0], inputs[1][0, 0, 0])
    np.testing.assert_allclose(attention, 1)


def symbolic(x_low=(2, 10, 10, 3), x_high=(2, 40, 40, 3), attention=(2, 5, 4)):
    return [keras.KerasTensor(shape) for shape in (x_low, x_high, attention)]


MAP = r"`attention` must have shape \(batch, rows, columns\)"
BATCH = "x_low, x_high and attention must hold the same number of samples"
CELLS = "Cannot sample 21 different cells .* of 5 x 4. Use at most 20 patches"


@pytest.mark.parametrize(
    ("arguments", "shapes", "message"),
    [
        ({}, {"attention": (2, 20)}, MAP),
        ({}, {"x_low": (3, 10, 10, 3)}, BATCH),
        ({}, {"x_low": (None, 10, 10, 3), "attention": (3, 5, 4)}, BATCH),
        ({}, {"x_low": (2, 10, 10)}, "`x_low` must have shape"),
        ({}, {"x_high": (2, 40, 40)}, "`x_high` must have shape"),
        (
            {"receptive_field": 10},
            {"x_low": (None, 12, 10, 3)},
            "larger than .* Received: receptive_field=10",
        ),
        ({"n_patches": 21}, {}, CELLS),
        # Also where training may sample one of them again and again.
        ({"n_patches": 21, "replace": True, "prediction": "top_k"}, {}, CELLS),
    ],
)
def test_refuses_inputs_that_do_not_fit(arguments, shapes, message):
    layer = SamplePatches(**{"n_patches": 3, "patch_size": 5, **arguments})
    inputs = symbolic(**shapes)
    with pytest.raises(ValueError, match=message):
        layer(inputs)
    with pytest.raises(ValueError, match=message):
        layer.compute_output_shape([x.shape for x in inputs])


def test_refuses_inputs_that_do_not_fit_when_eager():
    inputs = tensors(inputs_of())
    with pytest.raises(ValueError, match=CELLS):
        SamplePatches(21, 5)(inputs)
    SamplePatches(20, 5)(inputs)
    SamplePatches(21, 5, replace=True)(inputs)
    with pytest.raises(ValueError, match=BATCH):
        SamplePatches(3, 5)([*inputs[:2], inputs[2][:1]])


@pytest.mark.parametrize("inputs", [2, 5])
def test_refuses_another_number_of_inputs(inputs):
    images = [keras.Input((9, 9, 3))] * inputs
    message = r"3 to 4 inputs, \[x_low, x_high, attention, optional saliency\]"
    with pytest.raises(ValueError, match=message):
        SamplePatches(2, 4)(images)
    with pytest.raises(ValueError, match=message):
        SamplePatches(2, 4).compute_output_shape([x.shape for x in images])


def tagged_inputs(samples, attention, saliency=None):
    """Return inputs whose patches of one pixel tell the cell they were taken at.

    Args:
        samples: how many, all alike.
        attention: (rows, columns).
        saliency: (height, width) or None.
    """
    rows, columns = attention.shape
    x_high = np.arange(rows * columns, dtype="float32").reshape(1, rows, columns, 1)
    inputs = [x_high, x_high, attention[None].astype("float32")]
    if saliency is not None:
        inputs.append(saliency[None].astype("float32"))
    return tensors([np.repeat(x, samples, axis=0) for x in inputs])


def cells_of(patches):
    """Return the drawn cells, (samples, n_patches), of tagged images."""
    return ops.convert_to_numpy(patches)[..., 0, 0, 0].astype("int64")


# None so small that a draw of them is too rare for a chi-square.
SIX_CELLS = np.array([[0.1, 0.15, 0.2], [0.25, 0.1, 0.2]])
SALIENCY = np.array([[1.0, 4.0, 1.0], [2.0, 1.0, 6.0]])


def attention_of(rows, columns, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(rows * columns)).reshape(rows, columns)


class TestPredictionFromTheTop:
    @pytest.mark.parametrize("replace", [False, True])
    @pytest.mark.parametrize("arguments", [{}, {"training": False}])
    def test_takes_the_best_cells_every_time(self, arguments, replace):
        attention = attention_of(5, 6)
        layer = SamplePatches(4, 1, prediction="top_k", replace=replace)
        best = np.argsort(-attention.ravel())[:4]
        for _ in range(2):
            patches, sampled = layer(tagged_inputs(3, attention), **arguments)
            np.testing.assert_array_equal(cells_of(patches), np.tile(best, (3, 1)))
            np.testing.assert_allclose(
                ops.convert_to_numpy(sampled)[0], attention.ravel()[best], rtol=1e-6
            )

    def test_draws_in_training_as_without(self):
        inputs = tagged_inputs(20, attention_of(5, 6))
        of_the_top = SamplePatches(4, 1, prediction="top_k", seed=1)
        plain = SamplePatches(4, 1, seed=1)
        first, second = (
            cells_of(layer(inputs, training=True)[0]) for layer in (of_the_top, plain)
        )
        np.testing.assert_array_equal(first, second)
        assert len(np.unique(first, axis=0)) > 10

    def test_a_saliency_does_not_matter(self):
        attention, rng = attention_of(5, 6), np.random.default_rng(1)
        layer = SamplePatches(4, 1, prediction="top_k", proposal_mix=1.0)
        patches, sampled, proposed = layer(
            tagged_inputs(1, attention, rng.gamma(0.1, size=(5, 6)))
        )
        best = np.argsort(-attention.ravel())[:4]
        np.testing.assert_array_equal(cells_of(patches)[0], best)
        np.testing.assert_array_equal(*numpy([sampled, proposed]))


class TestProposal:
    @pytest.mark.parametrize("replace", [False, True])
    @pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
    def test_in_training_cells_follow_it(self, mix, replace):
        attention, saliency = SIX_CELLS, SALIENCY
        proposal = reference.proposal(attention.ravel(), saliency.ravel(), mix)
        layer = SamplePatches(2, 1, proposal_mix=mix, replace=replace, seed=0)
        inputs = tagged_inputs(20_000, attention, saliency)
        patches, sampled, proposed = layer(inputs, training=True)
        cells = cells_of(patches)
        draws, probabilities = reference.ordered_draws(proposal, 2, replace)
        observed = [(cells == draw).all(axis=1).sum() for draw in draws]
        assert sum(observed) == 20_000
        statistic, limit = reference.chi_square(observed, probabilities * 20_000)
        assert statistic < limit
        sampled, proposed = numpy([sampled, proposed])
        np.testing.assert_allclose(sampled, attention.ravel()[cells], rtol=1e-6)
        np.testing.assert_allclose(proposed, proposal[cells], rtol=1e-5)

    @pytest.mark.parametrize("arguments", [{}, {"training": False}])
    def test_outside_training_cells_follow_the_attention(self, arguments):
        attention, saliency = SIX_CELLS, SALIENCY
        with_it = SamplePatches(2, 1, proposal_mix=1.0, seed=0)
        without = SamplePatches(2, 1, seed=0)
        patches, sampled, proposed = with_it(
            tagged_inputs(500, attention, saliency), **arguments
        )
        plain, _ = without(tagged_inputs(500, attention), **arguments)
        np.testing.assert_array_equal(cells_of(patches), cells_of(plain))
        np.testing.assert_array_equal(*numpy([sampled, proposed]))

    @pytest.mark.parametrize(
        ("size", "receptive_field"),
        [((10, 10), 2), ((5, 4), 2), ((7, 23), 2), ((10, 10), 0), ((1, 1), 0)],
    )
    def test_the_saliency_is_averaged_over_each_cell(self, size, receptive_field):
        """All twenty cells are drawn: their proposals are compared one by one."""
        x_low, x_high, attention = inputs_of()
        saliency = np.random.default_rng(0).gamma(0.5, size=(2, *size))
        layer = SamplePatches(20, 1, receptive_field=receptive_field, proposal_mix=0.7)
        _, sampled, proposed = numpy(
            layer(
                tensors([x_low, x_high, attention, saliency.astype("float32")]),
                training=True,
            )
        )
        for sample in range(2):
            if size == (5, 4):
                means = saliency[sample]
            else:
                down = [
                    reference.cell_mean(column, 5, 10, receptive_field)
                    for column in saliency[sample].T
                ]
                means = [
                    reference.cell_mean(row, 4, 10, receptive_field)
                    for row in np.transpose(down)
                ]
            expected = reference.proposal(
                attention[sample].ravel(), np.ravel(means), 0.7
            )
            order = np.argsort(attention[sample].ravel())
            drawn = np.argsort(sampled[sample])
            np.testing.assert_allclose(
                proposed[sample, drawn], expected[order], rtol=1e-4
            )

    def test_of_logits(self):
        attention, saliency = attention_of(3, 4), np.eye(3, 4)
        of_attention = SamplePatches(4, 1, seed=2)
        of_logits = SamplePatches(4, 1, seed=2, use_logits=True)
        first = of_attention(tagged_inputs(5, attention, saliency), training=True)
        second = of_logits(
            tagged_inputs(5, np.log(attention) + 3, saliency), training=True
        )
        for one, other in zip(first, second, strict=True):
            np.testing.assert_allclose(*numpy([one, other]), rtol=1e-4)

    @pytest.mark.parametrize("training", [True, False])
    def test_gradient_reaches_the_attention_but_not_by_the_proposal(self, training):
        x_low, x_high, attention = inputs_of(samples=1)
        saliency = np.random.default_rng(0).uniform(size=(1, 5, 4)).astype("float32")
        layer = SamplePatches(3, 1, seed=0)
        drawn = {}
        for output in (1, 2):
            drawn[output] = value_and_gradients(
                lambda a, s, output=output: layer(
                    [ops.array(x_low), ops.array(x_high), a, s], training=training
                )[output],
                [attention, saliency],
            )
        value, (of_attention, of_saliency) = drawn[1]
        np.testing.assert_array_equal(of_attention != 0, np.isin(attention, value))
        np.testing.assert_array_equal(of_saliency, 0)
        for gradient in drawn[2][1]:
            np.testing.assert_array_equal(gradient, 0)

    def test_only_a_layer_built_with_a_saliency_has_one(self):
        attention = attention_of(3, 4)
        plain, salient = SamplePatches(2, 1), SamplePatches(2, 1, proposal_mix=0.25)
        assert not salient.has_proposal
        plain(tagged_inputs(1, attention))
        salient(tagged_inputs(1, attention, attention))
        assert (plain.has_proposal, salient.has_proposal) == (False, True)
        assert (len(plain.weights), len(salient.weights)) == (0, 1)
        assert salient.trainable_weights == []
        assert float(ops.convert_to_numpy(salient.mix)) == 0.25

    def test_the_mix_and_the_random_state_are_saved(self, tmp_path):
        """A loaded model goes on with the draws of the saved one, from its proposal."""
        inputs = tagged_inputs(20, attention_of(5, 6), np.eye(5, 6))
        symbolic = [keras.Input(x.shape[1:]) for x in inputs]
        layer = SamplePatches(3, 1, proposal_mix=0.9)
        model = keras.Model(symbolic, layer(symbolic))
        layer.mix.assign(0.125)
        model(inputs, training=True)
        model.save(tmp_path / "model.keras")
        model.save_weights(tmp_path / "model.weights.h5")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        again = keras.models.clone_model(model)
        again.load_weights(tmp_path / "model.weights.h5")
        expected = numpy(model(inputs, training=True))
        for other in (loaded, again):
            (other_layer,) = (x for x in other.layers if isinstance(x, SamplePatches))
            assert float(ops.convert_to_numpy(other_layer.mix)) == 0.125
            assert other_layer.proposal_mix == 0.9
            for got, right in zip(
                numpy(other(inputs, training=True)), expected, strict=True
            ):
                np.testing.assert_array_equal(got, right)

    @pytest.mark.parametrize("saliency", [(2, 10, 10, 3), (2, 10), (2,)])
    def test_refuses_a_saliency_that_is_no_map(self, saliency):
        with pytest.raises(
            ValueError, match=r"one value a pixel\. Received: saliency\.shape=\(2,"
        ):
            SamplePatches(3, 5)([*symbolic(), keras.KerasTensor(saliency)])

    def test_a_saliency_may_have_one_channel(self):
        """As the last convolution of a saliency network gives it."""
        x_low, x_high, attention = tagged_inputs(50, SIX_CELLS)
        steps = np.arange(1, 7, dtype="float32").reshape(attention.shape[1:])
        saliency = ops.ones_like(attention) * ops.array(steps)
        drawn = [
            SamplePatches(2, 1, seed=0)([x_low, x_high, attention, s], training=True)
            for s in (saliency, saliency[..., None])
        ]
        for got, expected in zip(*drawn, strict=True):
            np.testing.assert_array_equal(*map(ops.convert_to_numpy, (got, expected)))


@pytest.mark.parametrize(
    "argument",
    [
        {"n_patches": 0},
        {"patch_size": 0},
        {"receptive_field": -1},
        {"replace": 1},
        {"prediction": "all"},
        {"proposal_mix": 1.5},
        {"seed": True},
        {"seed": -1},
    ],
)
def test_refuses_other_arguments(argument):
    ((name, value),) = argument.items()
    with pytest.raises(ValueError, match=f"Received: {name}={value!r}"):
        SamplePatches(**{"n_patches": 3, "patch_size": 5, **argument})


def test_config_holds_every_argument():
    arguments = {
        "n_patches": 3,
        "patch_size": (4, 5),
        "receptive_field": 2,
        "replace": True,
        "use_logits": True,
        "seed": 7,
        "return_origins": True,
        "prediction": "sample",
        "proposal_mix": 0.25,
    }
    config = SamplePatches(**arguments).get_config()
    assert {name: config[name] for name in arguments} == arguments
    assert SamplePatches.from_config(config).get_config() == config
    config = SamplePatches(2, 4, prediction="top_k").get_config()
    assert SamplePatches.from_config(config).prediction == "top_k"
