import ast
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def read_version() -> str:
    """Read __version__ from the package without importing it."""
    module = ast.parse((HERE / "attention_sampling" / "__init__.py").read_text("utf-8"))
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            if getattr(statement.targets[0], "id", None) == "__version__":
                return ast.literal_eval(statement.value)
    raise RuntimeError("attention_sampling/__init__.py holds no __version__")


def read_readme() -> str:
    """Return README.rst without its pictures, which are beside it and not on an index."""
    text = (HERE / "README.rst").read_text("utf-8")
    return re.sub(r"^\.\. image:: (?!https?:).*\n(?:   .*\n)*\n", "", text, flags=re.M)


EXPERIMENTS = [
    "matplotlib>=3.8",
    "pandas>=2.1",
    "pooch>=1.8",
    "tensorboard>=2.18",
    "tqdm>=4.60",
]
SLIDES = ["imagecodecs>=2024.1.1", "openslide-bin>=4.0.0", "openslide-python>=1.3"]

setup(
    # `attention-sampling` on the package index is the reference implementation of 2019.
    name="keras-attention-sampling",
    version=read_version(),
    description="Deep attention sampling on images too large for a network, for Keras 3",
    long_description=read_readme(),
    long_description_content_type="text/x-rst",
    author="The attention-sampling developers",
    license="MIT",
    project_urls={
        "Paper": "https://arxiv.org/abs/1905.03711",
        "Reference implementation": "https://github.com/idiap/attention-sampling",
    },
    keywords=[
        "attention",
        "deep learning",
        "digital pathology",
        "gigapixel",
        "keras",
        "megapixel",
        "multiple instance learning",
        "tensorflow",
        "whole slide image",
    ],
    packages=find_packages(include=["attention_sampling", "attention_sampling.*"]),
    package_data={
        "attention_sampling": ["py.typed"],
        "attention_sampling.experiments.pretrained": ["*.keras"],
    },
    python_requires=">=3.11",
    install_requires=[
        "tensorflow>=2.18",
        "keras>=3.10",
        "numpy>=1.26",
        "scikit-image>=0.24",  # brings Pillow, SciPy and tifffile
        "h5py>=3.10",
        "filelock>=3.13",
        "simplejpeg>=1.7",
        "wrapt>=1.14",
    ],
    extras_require={
        "slides": SLIDES,
        "experiments": EXPERIMENTS,
        "test": [
            *EXPERIMENTS,
            *SLIDES,
            "hypothesis>=6.100",
            "pytest>=8.0",
            "pytest-xdist>=3.5",
        ],
        "docs": ["furo", "sphinx>=7.4", "sphinx-copybutton>=0.5"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
