"""The Keras layers attention sampling is stacked from."""

from attention_sampling.layers.activity_regularizer import ActivityRegularizer
from attention_sampling.layers.expectation import Expectation
from attention_sampling.layers.extract_patches import ExtractPatches
from attention_sampling.layers.sample_patches import SamplePatches
from attention_sampling.layers.sample_softmax import SampleSoftmax

__all__ = [
    "ActivityRegularizer",
    "Expectation",
    "ExtractPatches",
    "SamplePatches",
    "SampleSoftmax",
]
