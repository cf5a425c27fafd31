"""The methods the paper compares, as named on the command line."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to classify large images. ``str`` gives the text it is parsed from.

    Attributes:
        kind: "ats", "u", "cnn" or "deep-mil".
        n_patches: patches drawn, of "ats" and "u".
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
