"""Command line options of the speed-limit example."""

import argparse
from pathlib import Path

from experiment_options import add_options, describe, set_defaults

from attention_sampling.experiments.tasks import TASKS, parse_method

TASK = TASKS["speed_limits"]

# For photographs of a megapixel.
SETTINGS = {
    "method": parse_method("ats-5"),
    "epochs": 100,
    "batch_size": TASK.batch_size,
    "learning_rate": 1e-3,
    "decay": 0.25,
    "clip": "weight",
    "weight_decay": 0.0,
    "dtype_policy": "float32",
    "test_fraction": 0.25,
    "patch_size": 100,
    "scale": 0.3,
    "first_stride": 1,
    "block_strides": "2,2,2",
    "entropy": 0.01,
    "mix": 0.0,
    "mix_epochs": 0,
    "estimator": "unordered",
    "control_variate": False,
    "prediction": "sample",
    "center": True,
    "feature_scale": 4.0,
}
# What the paper does not say is as in the scripts of its authors.
PAPER_SETTINGS = SETTINGS | {
    "epochs": 500,
    "batch_size": 32,
    "decay": 0.0,
    "clip": "global",
    "entropy": TASK.entropy,
    "estimator": "ordered",
    "center": False,
    "feature_scale": 1.0,
}
DRAWN_SETTINGS = SETTINGS | {
    "method": parse_method("ats-6"),
    "epochs": 28,
    "batch_size": 8,
    "learning_rate": 2e-3,
    "test_fraction": 0.2,
    "patch_size": 64,
    "scale": 0.25,
    "first_stride": 2,
    "block_strides": "1,2,2,2",
    "mix": 1.0,
    "mix_epochs": 14,
    "control_variate": True,
}
VARIANTS = {
    "": SETTINGS,
    "for drawn scenes": DRAWN_SETTINGS,
    "with --paper": PAPER_SETTINGS,
}


def parse_arguments(description, argv=None):
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset",
        metavar="DIR",
        type=Path,
        help="German Traffic Sign Detection Benchmark (gt.txt) or Swedish Traffic Signs "
        "(Set1, Set2); without it, scenes are drawn",
    )
    data.add_argument(
        "--download",
        action="store_true",
        help="fetch the Swedish Traffic Signs into --dataset first",
    )
    data.add_argument(
        "--test-from",
        type=int,
        metavar="N",
        help="image number >= N is test, instead of a share (German format)",
    )
    data.add_argument(
        "--on-demand",
        action="store_true",
        help="leave the images on disk and read each patch when it is drawn, as for "
        "images that do not fit into memory. Training images are then not augmented: "
        "view and patches are read apart, and would show different pictures",
    )
    networks = parser.add_argument_group("networks")
    networks.add_argument(
        "--start-from",
        metavar="MODEL",
        type=Path,
        help="begin with the networks of another run's model.keras; the classifier is "
        "new, so the classes may differ",
    )
    for group, name, kind, explanation in (
        (
            data,
            "test_fraction",
            float,
            "share of test images, unless the data set says",
        ),
        (networks, "patch_size", int, "in full-resolution pixels"),
        (networks, "scale", float, "of the view to the image"),
        (
            networks,
            "first_stride",
            int,
            "of the feature network; 2 is faster, 1 sees more detail",
        ),
        (
            networks,
            "block_strides",
            _strides,
            "of the residual blocks of the feature network, one for each",
        ),
    ):
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            help=explanation + describe(name, VARIANTS),
        )
    parser.add_argument(
        "--paper", action="store_true", help="begin with the settings of the paper"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="measure a few training steps instead of training",
    )
    add_options(parser, TASK, "runs/speed_limits", VARIANTS)
    arguments = parser.parse_args(argv)
    defaults = SETTINGS if arguments.dataset else DRAWN_SETTINGS
    defaults = PAPER_SETTINGS if arguments.paper else defaults
    if arguments.mix is None and arguments.mix_epochs == 0 and defaults["mix"]:
        # 0 once meant that there is no proposal.
        parser.error(
            "--mix-epochs 0 needs --mix: 0 to draw from the attention alone, more for a "
            "proposal that stays"
        )
    set_defaults(parser, arguments, defaults)
    for name in ("patch_size", "first_stride"):
        if getattr(arguments, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be positive")
    if not 0 < arguments.scale <= 1:
        parser.error("--scale must be above 0 and at most 1")
    if not 0 < arguments.test_fraction < 1:
        parser.error("--test-fraction must be above 0 and below 1")
    if arguments.download and not arguments.dataset:
        parser.error("--download needs --dataset DIR, where to put the images")
    if arguments.start_from and arguments.method.kind != "ats":
        parser.error("--start-from needs --method ats-N")
    if arguments.start_from and not arguments.start_from.is_file():
        parser.error(f"--start-from is no file: {arguments.start_from}")
    return arguments


def _strides(text):
    try:
        strides = [int(part) for part in text.split(",")]
    except ValueError:
        strides = [0]
    if min(strides) < 1:
        raise argparse.ArgumentTypeError(
            f"not as expected: whole numbers above 0, such as 2,2,2. Received: {text!r}"
        )
    return ",".join(map(str, strides))  # as the settings are to say it
