"""Short names of images that tell them apart."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Return the file name of each path, with as many directories as tell it apart.

    Paths that are equal are numbered.

    Args:
        paths: paths of files.

    Example:

    >>> distinct_names(["here/1.tif", "there/1.tif", "there/2.tif", "there/2.tif"])
    ['here/1.tif', 'there/1.tif', '2.tif (1)', '2.tif (2)']
    """
    parts = [PurePath(path).parts for path in paths]
    counts = Counter(parts)
    names: dict[tuple[str, ...], str] = {}
    length = 0
    while len(names) < len(counts):
        length += 1
        shared = Counter(one[-length:] for one in counts)
        for one in counts:
            if one not in names and (shared[one[-length:]] == 1 or length > len(one)):
                names[one] = PurePath(*one[-length:]).as_posix()
    numbers: Counter[tuple[str, ...]] = Counter()
    distinct = []
    for one in parts:
        numbers[one] += 1
        number = f" ({numbers[one]})" if counts[one] > 1 else ""
        distinct.append(names[one] + number)
    return distinct
