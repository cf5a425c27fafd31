"""Signs for training without those that stand in the scenes for testing."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from attention_sampling.datasets.pasted_signs import LIMITS, Part, find_places
from attention_sampling.datasets.pasting import read_image
from attention_sampling.datasets.traffic_signs import Sample

_ALIKE = 0.95  # correlation
_SIZE = 20  # pixels


def leave_out(part: Part, samples: Iterable[Sample]) -> Part:
    """Return a part without some scenes, and without their signs and where these are.

    The two German benchmarks were filmed on the same drives: some tracks of crops show a
    sign that is in a scene too. A track is left out if one of its crops correlates above
    0.95 with a sign of the samples, both as 20 x 20 grey pixels.

    Args:
        part: as of `pasted_signs.read_parts`.
        samples: scenes to test with.

    Raises:
        OSError: a scene cannot be read.
        ValueError: no sign of a limit is left.

    Example::

        train, _ = read_parts(Path("data/gtsdb"), Path("data/gtsrb"))
        part = leave_out(train, load_speed_limits("data/gtsdb").test)
    """
    samples = list(samples)
    names = {Path(sample.path).stem for sample in samples}
    signs = np.array([pixels for sample in samples for pixels in _cut_signs(sample)])

    def is_new(track: Sequence[npt.NDArray[np.float64]]) -> bool:
        return not len(signs) or (np.array(track) @ signs.T).max() <= _ALIKE

    tracks = {}
    for sign_class, found in part.tracks.items():
        new = [track for track in found if is_new([_normalize(c.sign) for c in track])]
        if new:
            tracks[sign_class] = new
        elif sign_class in LIMITS:
            raise ValueError(
                f"Every sign of class {sign_class} stands in a scene that is left out. "
                f"Expected: another one. Received: {len(found)} signs"
            )
    scenes = [scene for scene in part.scenes if scene[0].stem not in names]
    gone = Counter(find_places(samples))
    return Part(scenes, tracks, [*(Counter(part.places) - gone).elements()])


def _cut_signs(sample: Sample) -> list[npt.NDArray[np.float64]]:
    signs = (*sample.signs, *sample.other_signs)
    if not signs:
        return []
    image = read_image(Path(sample.path))
    return [
        _normalize(image[max(0, s.top) : s.bottom + 1, max(0, s.left) : s.right + 1])
        for s in signs
    ]


def _normalize(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return grey pixels (400,) of mean 0 and norm 1."""
    from PIL import Image

    grey = Image.fromarray(pixels).convert("L")
    small = grey.resize((_SIZE, _SIZE), Image.Resampling.BOX)
    values = np.asarray(small, "float64").ravel()
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-9)
