"""The methods the paper compares, and what it reports of each."""

import re
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Method:
    """A way to classify large images. ``str`` gives the text it is parsed from.

    Attributes:
        kind: "ats", "u", "cnn" or "deep-mil".
        n_patches: patches sampled, of "ats" and "u".
        scale: of the image that the network sees, of "cnn".
        gated: whether the attention is gated, of "deep-mil".
    """

    kind: str
    n_patches: int | None = None
    scale: float | None = None
    gated: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what the model takes, in order."""
        return ("view", "image") if self.kind in ("ats", "u") else ("image",)

    def __str__(self):
        if self.kind == "deep-mil":
            return "deep-mil-gated" if self.gated else "deep-mil"
        number = self.n_patches if self.scale is None else f"{self.scale:.12g}"
        return f"{self.kind}-{number}"


def parse_method(text: str) -> Method:
    """Return the method that a text names.

    Args:
        text: "ats-N" or "u-N" for N patches, "cnn-S" for a network on images at scale
            S, above 0 and at most 1, "deep-mil" or "deep-mil-gated".

    Raises:
        ValueError: it names none.

    Example:

    >>> parse_method("ats-10").n_patches
    10
    >>> str(parse_method("cnn-0.5"))
    'cnn-0.5'
    """
    if text in ("deep-mil", "deep-mil-gated"):
        return Method("deep-mil", gated=text.endswith("gated"))
    if match := re.fullmatch(r"(ats|u)-([1-9][0-9]*)", text):
        return Method(match[1], n_patches=int(match[2]))
    if match := re.fullmatch(r"cnn-([01]|[01]?\.[0-9]+)", text):
        if 0 < float(match[1]) <= 1:
            return Method("cnn", scale=float(match[1]))
    raise ValueError(
        "No such method. Expected: ats-N or u-N with a number of patches of at least 1, "
        "cnn-S with a scale above 0 and at most 1, deep-mil or deep-mil-gated. "
        f"Received: method={text!r}"
    )


class PublishedRow(NamedTuple):
    """Numbers of the paper for one method; None where it has none.

    Attributes:
        train_loss: mean over its runs of the cross-entropy on the training images.
        train_loss_error: standard error of that mean.
        test_error: mean fraction of the test images that were classified wrongly.
        test_error_error: standard error of that mean.
        ms: milliseconds a sample for forward and backward pass, batch 1.
        mb: megabytes of peak memory a sample, batch 1.
    """

    train_loss: float | None = None
    train_loss_error: float | None = None
    test_error: float | None = None
    test_error_error: float | None = None
    ms: float | None = None
    mb: float | None = None


# Task -> method -> row, in the order of tables 1 and 2, and of section 4.2.1.
PUBLISHED: dict[str, dict[str, PublishedRow]] = {
    # Two in words, the others in a figure alone.
    "megapixel_mnist": {
        "ats-5": PublishedRow(test_error=0.20),
        "ats-10": PublishedRow(),
        "ats-25": PublishedRow(),
        "ats-50": PublishedRow(),
        "ats-100": PublishedRow(),
        "cnn-1": PublishedRow(test_error=0.40),
    },
    "colon_cancer": {
        "u-10": PublishedRow(0.210, 0.031, 0.156, 0.006, 1.8, 19),
        "u-50": PublishedRow(0.075, 0.000, 0.124, 0.010, 4.6, 24),
        "cnn-0.5": PublishedRow(0.002, 0.000, 0.104, 0.009, 4.8, 65),
        "cnn-1": PublishedRow(0.002, 0.000, 0.092, 0.012, 18.7, 250),
        "deep-mil": PublishedRow(0.007, 0.000, 0.093, 0.004, 48.5, 644),
        "ats-10": PublishedRow(0.083, 0.019, 0.093, 0.014, 1.8, 21),
        "ats-50": PublishedRow(0.028, 0.002, 0.093, 0.019, 4.5, 26),
    },
    "speed_limits": {
        "u-5": PublishedRow(1.468, 0.317, 0.531, 0.004, 7.8, 39),
        "u-10": PublishedRow(0.851, 0.408, 0.472, 0.008, 10.8, 78),
        "cnn-0.3": PublishedRow(0.003, 0.001, 0.311, 0.049, 6.6, 86),
        "cnn-0.5": PublishedRow(0.002, 0.001, 0.295, 0.039, 15.6, 239),
        "cnn-1": PublishedRow(0.002, 0.000, 0.247, 0.001, 64.2, 958),
        "deep-mil": PublishedRow(0.077, 0.089, 0.083, 0.006, 97.2, 1497),
        "ats-5": PublishedRow(0.162, 0.124, 0.089, 0.002, 8.5, 86),
        "ats-10": PublishedRow(0.082, 0.032, 0.095, 0.008, 10.3, 118),
    },
}
