"""The Keras layers attention sampling is made of, and the one that holds them all."""

from attention_sampling.layers.activity_regularizer import ActivityRegularizer
from attention_sampling.layers.attention_sampling import AttentionSampling
from attention_sampling.layers.color_contrast import ColorContrast
from attention_sampling.layers.expectation import Expectation
from attention_sampling.layers.extract_patches import ExtractPatches
from attention_sampling.layers.local_contrast import LocalContrast
from attention_sampling.layers.sample_patches import SamplePatches
from attention_sampling.layers.sample_softmax import SampleSoftmax
from attention_sampling.layers.sampling_metrics import SamplingMetrics

__all__ = [
    "ActivityRegularizer",
    "AttentionSampling",
    "ColorContrast",
    "Expectation",
    "ExtractPatches",
    "LocalContrast",
    "SamplePatches",
    "SampleSoftmax",
    "SamplingMetrics",
]
