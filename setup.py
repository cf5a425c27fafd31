import ast
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


EXAMPLES = [
    "matplotlib>=3.8",
    "pillow>=10.1",
    "scipy>=1.11",
    "tensorboard>=2.18",
    "tqdm>=4.60",
]
HDF5 = ["h5py>=3.10", "tqdm>=4.60"]
IMAGES = ["pillow>=10.1", "simplejpeg>=1.7"]
TIFF = ["imagecodecs>=2024.1.1", "tifffile>=2024.1.30"]
SLIDES = ["openslide-bin>=4.0.0", "openslide-python>=1.3"]
TEST = ["hypothesis>=6.100", "pytest>=8.0", "pytest-xdist>=3.5"]
FORMATS = [*HDF5, *IMAGES, *TIFF, *SLIDES]

setup(
    name="attention-sampling",
    version=read_version(),
    description="Deep attention sampling on images too large for a network, for Keras 3",
    long_description=(HERE / "README.rst").read_text("utf-8"),
    long_description_content_type="text/x-rst",
    license="MIT",
    packages=find_packages(include=["attention_sampling", "attention_sampling.*"]),
    package_data={"attention_sampling": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=["tensorflow>=2.18", "keras>=3.10", "numpy>=1.26", "wrapt>=1.14"],
    extras_require={
        "hdf5": HDF5,
        "images": IMAGES,
        "tiff": TIFF,
        "slides": SLIDES,
        "formats": FORMATS,
        "examples": [*EXAMPLES, *FORMATS],
        "test": [*EXAMPLES, *FORMATS, *TEST],
        "docs": ["docutils>=0.21", "furo", "sphinx>=7.4"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
