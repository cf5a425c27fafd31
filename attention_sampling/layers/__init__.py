"""The Keras layers attention sampling is stacked from."""

from attention_sampling.layers.activity_regularizer import ActivityRegularizer
from attention_sampling.layers.expectation import Expectation
from attention_sampling.layers.extract_patches import ExtractPatches
from attention_sampling.layers.full_expectation import FullExpectation
from attention_sampling.layers.local_contrast import LocalContrast
from attention_sampling.layers.sample_patches import SamplePatches
from attention_sampling.layers.sample_softmax import SampleSoftmax
from attention_sampling.layers.sampling_metrics import SamplingMetrics
from attention_sampling.layers.unfold_patches import UnfoldPatches

__all__ = [
    "ActivityRegularizer",
    "Expectation",
    "ExtractPatches",
    "FullExpectation",
    "LocalContrast",
    "SamplePatches",
    "SampleSoftmax",
    "SamplingMetrics",
    "UnfoldPatches",
]
