"""Stained tissue of any patient or laboratory -> the colours of one."""

import numpy as np
import numpy.typing as npt

# Optical density of red, green and blue for a unit of haematoxylin and of eosin, and the
# amount of each in the darkest pixels: of the slide that is the usual reference, that of
# Veta's code for Vink et al. 2013.
_REFERENCE = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
_REFERENCE_AMOUNTS = np.array([1.9705, 1.0308])
_GLASS = 0.15 * np.log(10)  # optical density below it: no tissue. The paper has log10.
_SMALLEST_ANGLE = 0.05  # between two stains, in radians

_Pixels = npt.NDArray[np.uint8]
_Floats = npt.NDArray[np.float64]


def normalize_stains(image: _Pixels) -> _Pixels:
    """Give tissue stained with haematoxylin and eosin the colours of a reference.

    The two stains are found in the pixels of the image, and their amounts are shown in
    the stains of the reference. For images whose colours differ by patient or laboratory.

    Args:
        image: (height, width, 3) uint8.

    Returns:
        Image likewise. One in which there are not two stains, such as glass, is returned
        as it is.

    Example:

    >>> normalize_stains(np.full((8, 8, 3), 250, "uint8"))[0, 0].tolist()
    [250, 250, 250]

    Reference:
        Macenko et al. 2009, *A method for normalizing histology slides for quantitative
        analysis*; Vink et al. 2013, *Efficient nucleus detector in histopathology images*.
    """
    from skimage.color import combine_stains, separate_stains

    light = np.maximum(image, 1)  # black has no logarithm
    density = -np.log(light / 255)
    tissue = np.linalg.norm(density, axis=-1) > _GLASS
    stains = _find_stains(density[tissue])
    if stains is None:
        return image
    amounts = separate_stains(light, np.linalg.inv(_complete(stains)))
    amounts[..., 2] = 0  # what neither stain explains
    # scikit-image counts in units of the optical density of its darkest pixel, 1e-6.
    darkest = np.percentile(amounts[tissue, :2], 99, axis=0) * -np.log(1e-6)
    amounts[..., :2] *= _REFERENCE_AMOUNTS / darkest
    normalized = combine_stains(amounts, _complete(_REFERENCE))
    return np.rint(255 * normalized).astype("uint8")


def _find_stains(tissue: _Floats) -> _Floats | None:
    """Return the optical densities of haematoxylin and eosin, (2, 3), of norm 1.

    Args:
        tissue: optical densities of pixels, (count, 3).
    """
    if len(tissue) < 100:
        return None
    # The pixels are between two directions of the plane in which they vary most.
    _, vectors = np.linalg.eigh(np.cov(tissue.T))
    plane = vectors[:, 1:] * np.sign(tissue.mean(axis=0) @ vectors[:, 1:])
    angles = np.arctan2(*(tissue @ plane).T)
    low, high = np.percentile(angles, [1, 99])
    if high - low < _SMALLEST_ANGLE:
        return None
    stains = np.array([[np.sin(a), np.cos(a)] for a in (low, high)]) @ plane.T
    return stains[np.argsort(-stains[:, 0])]  # haematoxylin takes more of the red


def _complete(stains: _Floats) -> _Floats:
    """Add a third stain, orthogonal to both: with it the fit is that of least squares."""
    rows = np.vstack([stains, np.cross(*stains)])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
