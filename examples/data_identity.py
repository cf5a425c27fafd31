"""What images an experiment is of: a run goes on with no others."""

import json
from hashlib import sha256

import numpy as np

_DIGITS = 16


def describe_data(drawn, n_images, parts, **more):
    """Return the setting ``data`` of a run, of types that JSON has.

    Args:
        drawn: whether the images were made by this package instead of published.
        n_images: how many there are, to train on and to test with.
        parts: what tells them from others, cheaply: arrays, or of types that JSON has.
        more: what else is known of them.
    """
    digest = sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(json.dumps(part).encode())
    identity = digest.hexdigest()[:_DIGITS]
    return {"drawn": drawn, "images": int(n_images), **more, "digest": identity}
