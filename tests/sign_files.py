"""Small made-up files in the formats of the two German traffic sign benchmarks."""

import numpy as np
from PIL import Image

LIMITS = {1: "30", 2: "50", 4: "70", 5: "80"}
ANOTHER_LIMIT = 7  # 100 km/h, which no class is for
OTHERS = 6, 9  # end of 80, no overtaking
N_SCENES, N_TRACKS = 10, 5
SIZE = 200, 160  # of a scene: width, height


def write_benchmarks(directory, signs=(*LIMITS, *OTHERS, ANOTHER_LIMIT)):
    """Write ``scenes``, ten of them without a limit, and ``signs`` of some classes.

    Each scene is one grey; each sign is a bright disk, of other pixels than every other.
    """
    rng = np.random.default_rng(0)
    scenes = directory / "scenes"
    (scenes / "images").mkdir(parents=True)
    lines = []
    for number in range(N_SCENES + 2):
        name = f"{number:05}.png"
        Image.new("RGB", SIZE, (60 + 5 * number,) * 3).save(scenes / "images" / name)
        if number < N_SCENES:
            lines.append(f"{name};5;5;20;20;13\n")
        else:
            sign_class = number - N_SCENES + 1
            for left in (25, 85, 145):
                lines.append(f"{name};{left};60;{left + 20};80;{sign_class}\n")
    (scenes / "gt.txt").write_text("".join(lines))
    for sign_class in signs:
        folder = directory / "signs" / f"{sign_class:05}"
        folder.mkdir(parents=True)
        lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"]
        for track in range(N_TRACKS):
            for frame, side in enumerate((20, 36)):
                y, x = np.ogrid[-1.2 : 1.2 : side * 1j, -1.2 : 1.2 : side * 1j]
                sign = rng.integers(200, 256, (side, side, 3), dtype="uint8")
                crop = np.where(np.hypot(x, y)[..., None] < 1, sign, np.uint8(90))
                name, edge = f"{track:05}_{frame:05}.ppm", side // 12
                Image.fromarray(crop).save(folder / name)
                roi = f"{edge};{edge};{side - 1 - edge};{side - 1 - edge}"
                lines.append(f"{name};{side};{side};{roi};{sign_class}\n")
        (folder / f"GT-{sign_class:05}.csv").write_text("".join(lines))
    return scenes, directory / "signs"
