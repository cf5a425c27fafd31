r"""Make scenes with a speed limit: real signs pasted into photographs of real roads.

    python examples/make_speed_limits.py data/gtsdb data/gtsrb data/pasted
    python examples/make_speed_limits.py data/gtsdb data/gtsrb data/small --scale 0.5

writes OUT/train and OUT/test, each with images and gt.txt as in the German Traffic Sign
Detection Benchmark (GTSDB). SCENES is that benchmark: signs are pasted into those of its
scenes without a limit, where others show one. SIGNS is the training set of the German
Traffic Sign Recognition Benchmark (GTSRB), a folder for each class. Both are at

    https://benchmark.ini.rub.de

A network then learns from them, at the scale 0.5 by

    python -m attention_sampling experiments run speed_limits OUT --patch-size 48 \
        --scale 0.5 --epochs 2
"""

import argparse
import sys
from pathlib import Path

from attention_sampling.datasets.pasted_signs import write_pasted_signs
from attention_sampling.files import one_process


def show_progress(done, total):
    if done % 50 == 0 or done == total:
        print(f"\r{done} of {total} images", end="", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("scenes", metavar="SCENES", type=Path, help="directory of GTSDB")
    option("signs", metavar="SIGNS", type=Path, help="directory of GTSRB")
    option("output", metavar="OUT", type=Path, help="where to write; it is made")
    option("--n-train", type=int, default=747, help="images to train on")
    option("--n-test", type=int, default=684, help="images to test on")
    option("--seed", type=int, default=0, help="of all that is random")
    option("--scale", type=float, default=1.0, help="0.5: images of half the size")
    arguments = parser.parse_args()
    with one_process(arguments.output):
        write_pasted_signs(**vars(arguments), progress=show_progress)
    print(f" are in {arguments.output}")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted: nothing is written")
