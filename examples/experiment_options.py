"""Command line options that the paper's three experiments share."""

import argparse
import math
from pathlib import Path

import keras

import attention_sampling as ats
from attention_sampling.experiments.tasks import parse_method

# Settings that a resumed series may change.
FREE_SETTINGS = {"epochs", "pictures", "runs"}
# What does not determine a run, but where it goes, and what is done beside it.
_NOT_SETTINGS = {"download", "output", "overwrite", "profile", "resume"}
# Defaults where an experiment has none of its own.
_DEFAULTS = {"method": parse_method("ats-10")}

# Name, type, explanation.
_TRAINING = (
    ("epochs", int, "passes over the training images"),
    ("batch_size", int, "images a step"),
    ("learning_rate", float, "of Adam"),
    (
        "decay",
        float,
        "share of the training, at its end, over which the learning rate falls to 0",
    ),
    ("weight_decay", float, "of AdamW; 0 for Adam"),
    ("dtype_policy", str, "of Keras, such as float32 or mixed_bfloat16"),
)
_SAMPLING = (
    ("entropy", float, "strength of the entropy regularizer"),
    (
        "mix",
        float,
        "share of local contrast in the proposal that patches are drawn from in "
        "training; 0 draws from the attention alone",
    ),
    ("mix_epochs", int, "until that share has fallen to 0; 0 holds it"),
    ("feature_scale", float, "of the features, whose norm is 1, to the classifier"),
)
# Kind of method -> options that would do nothing.
_OF_ATTENTION = ("entropy", "mix", "mix_epochs")
_OF_DRAWS = (*_OF_ATTENTION, "estimator", "control_variate", "prediction")
_WITHOUT_USE = {
    "ats": (),
    "u": _OF_ATTENTION,
    "deep-mil": _OF_DRAWS,
    "cnn": (*_OF_DRAWS, "feature_scale", "center"),
}
_POSITIVE = ("runs", "epochs", "batch_size", "feature_scale")
_NOT_NEGATIVE = (
    "seed",
    "learning_rate",
    "weight_decay",
    "entropy",
    "mix_epochs",
    "pictures",
)
_SHARES = ("decay", "mix")
_SEEDS = 2**32  # as many as NumPy and Keras know


def add_options(parser, task, output, variants):
    """Add the shared options to the parser of an example.

    Args:
        parser: to add to.
        task: whose rows of the paper's table are suggested as methods.
        output: default of ``--output``.
        variants: by what the help says they are for, defaults of the options of an
            experiment: they are filled in by `set_defaults`.
    """
    variants = {name: _DEFAULTS | defaults for name, defaults in variants.items()}
    parser.add_argument(
        "--method",
        type=_method,
        help=f"what to train: {', '.join(task.methods)}, or other numbers of patches "
        "(ats, u) or scales (cnn)" + describe("method", variants),
    )
    training = parser.add_argument_group("training")
    training.add_argument(
        "--runs", type=int, default=1, help="to average over (default: %(default)s)"
    )
    training.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the first run: of weights, draws, order and folds; the next run has the "
        "next seed (default: %(default)s)",
    )
    for name, kind, explanation in _TRAINING:
        training.add_argument(
            _option(name), type=kind, help=explanation + describe(name, variants)
        )
    training.add_argument(
        "--clip",
        choices=("weight", "global"),
        help="at norm 1, the gradient of each weight by itself, or all of them as one "
        "vector" + describe("clip", variants),
    )
    sampling = parser.add_argument_group("attention sampling")
    for name, kind, explanation in _SAMPLING:
        sampling.add_argument(
            _option(name), type=kind, help=explanation + describe(name, variants)
        )
    sampling.add_argument(
        "--estimator",
        choices=("unordered", "ordered"),
        help="of the expectation; the paper's is ordered"
        + describe("estimator", variants),
    )
    sampling.add_argument(
        "--control-variate",
        action=argparse.BooleanOptionalAction,
        help="take noise out of the gradient of the attention"
        + describe("control_variate", variants),
    )
    sampling.add_argument(
        "--prediction",
        choices=("sample", "top_k"),
        help="outside training, draw patches or take those of most attention"
        + describe("prediction", variants),
    )
    sampling.add_argument(
        "--center",
        action=argparse.BooleanOptionalAction,
        help="normalize features by batch before their norm is made 1"
        + describe("center", variants),
    )
    places = parser.add_argument_group("output")
    places.add_argument(
        "--output", metavar="DIR", default=output, help="(default: %(default)s)"
    )
    earlier = places.add_mutually_exclusive_group()
    earlier.add_argument(
        "--resume", action="store_true", help="go on with the runs in --output"
    )
    earlier.add_argument(
        "--overwrite", action="store_true", help="delete the runs in --output first"
    )
    places.add_argument(
        "--pictures",
        type=int,
        default=8,
        help="test images of the first run to draw attention on (default: %(default)s)",
    )


def describe(name, variants):
    """Return the default of an option for its help, and the variants with another."""
    (first, *_), values = variants, [defaults[name] for defaults in variants.values()]
    others = [
        f"; {variant}: {_say(value)}"
        for variant, value in zip(variants, values, strict=True)
        if value != values[0]
    ]
    said = f"{first}: " if first else ""
    return f" (default: {said}{_say(values[0])}{''.join(others)})"


def set_defaults(parser, arguments, defaults):
    """Fill in what the command line does not say, and check all of it."""
    falls = arguments.mix_epochs  # said on the command line
    said = {name for name, value in vars(arguments).items() if value is not None}
    for name, value in (_DEFAULTS | defaults).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    for name in _WITHOUT_USE[arguments.method.kind]:
        if name in said:
            parser.error(
                f"{_option(name)} would do nothing: --method {arguments.method} does "
                "not have it"
            )
    for name in _POSITIVE:
        if not 0 < getattr(arguments, name) < math.inf:
            parser.error(f"{_option(name)} must be positive")
    for name in _NOT_NEGATIVE:
        if not 0 <= getattr(arguments, name) < math.inf:
            parser.error(f"{_option(name)} must be at least 0 and finite")
    for name in _SHARES:
        if not 0 <= getattr(arguments, name) <= 1:
            parser.error(f"{_option(name)} must be from 0 to 1")
    if arguments.seed + arguments.runs > _SEEDS:
        parser.error(f"--seed of the last run must be below {_SEEDS}")
    try:
        policy = keras.dtype_policies.get(arguments.dtype_policy)
    except ValueError as error:
        parser.error(f"--dtype-policy: {error}")
    if policy.quantization_mode is not None:
        parser.error(
            f"--dtype-policy {arguments.dtype_policy} is of quantized models, which are "
            "not trained; mixed_bfloat16 is"
        )
    if policy.compute_dtype == "float16":
        # Keras scales the loss and leaves out steps that overflow: the steps done no
        # longer tell the epochs done, nor the learning rate.
        parser.error(
            f"--dtype-policy {arguments.dtype_policy} leaves out steps that overflow; "
            "mixed_bfloat16 does not"
        )
    if arguments.control_variate and arguments.estimator == "ordered":
        parser.error("--estimator ordered needs --no-control-variate")
    if falls and not arguments.mix:
        parser.error(
            f"--mix-epochs {falls} needs --mix above 0: the share that is to fall"
        )
    if arguments.method.kind == "u" and arguments.prediction == "top_k":
        parser.error(
            "--prediction top_k needs --method ats-N: without attention, no place comes "
            "before another"
        )


def experiment_settings(arguments):
    """Return what determines the runs, less their data, by name, as JSON can say it."""
    settings = {
        name: value
        if value is None or isinstance(value, (bool, int, float))
        else str(value.resolve() if isinstance(value, Path) else value)
        for name, value in vars(arguments).items()
        if name not in _NOT_SETTINGS
    }
    return {**settings, "backend": keras.backend.backend()}


def sampling_keywords(arguments):
    """Return how ``attention_sampling()`` is to draw and estimate, if it is to."""
    if "view" not in arguments.method.inputs:
        return {}
    keywords = {
        "estimator": arguments.estimator,
        "control_variate": arguments.control_variate,
        "prediction": arguments.prediction,
    }
    if arguments.method.kind == "ats" and arguments.mix:
        keywords |= {
            "proposal": ats.LocalContrast(window=5),
            "proposal_mix": arguments.mix,
        }
    return keywords


def _option(name):
    return f"--{name.replace('_', '-')}"


def _say(value):
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _method(text):
    try:
        return parse_method(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from None
