"""Deep attention sampling on images too large for a network, for Keras 3.

A network looks at a low-resolution view and gives an attention distribution over
its cells; a few cells are sampled, and only the full-resolution patches there are
processed. Everything trains end to end with SGD.

Reference: A. Katharopoulos and F. Fleuret, *Processing Megapixel Images with
Deep Attention-Sampling Models*, ICML 2019.
"""

import importlib
from typing import Any

import wrapt

__version__ = "0.3.0"

# Public name -> module that defines it. Names are imported on first use, so that
# a process that only reads images never loads Keras.
_MODULE_OF = {
    "ActivityRegularizer": "layers",
    "AttentionSampling": "layers",
    "ColorContrast": "layers",
    "Expectation": "layers",
    "ExtractPatches": "layers",
    "LocalContrast": "layers",
    "MultinomialEntropy": "regularizers",
    "ProposalMix": "callbacks",
    "SamplePatches": "layers",
    "SampleSoftmax": "layers",
    "SamplingMetrics": "layers",
    "attention_sampling": "pipeline",
    "extract_patches": "ops.patches",
    "multinomial_entropy": "regularizers",
    "set_source": "pipeline",
    "with_sampling": "pipeline",
}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    try:
        module = _MODULE_OF[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(importlib.import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


@wrapt.when_imported("keras")
def _register_serializables(keras: Any) -> None:
    """Let ``keras.saving.load_model`` find our classes as soon as there is a Keras."""
    importlib.import_module(".layers", __name__)
    importlib.import_module(".regularizers", __name__)


@wrapt.when_imported("attention_sampling.layers")
def _register_baselines(layers: Any) -> None:
    """And those of the baselines, which stand on our layers, as soon as these are there."""
    importlib.import_module(".experiments.baselines", __name__)
