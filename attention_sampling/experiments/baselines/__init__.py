"""What the paper compares attention sampling with.

Uniform sampling, a residual network on the whole image, and attention-based deep
multiple instance learning on the patches of a regular grid.
"""

from attention_sampling.experiments.baselines.area_downsampling import AreaDownsampling
from attention_sampling.experiments.baselines.attention_pooling import AttentionPooling
from attention_sampling.experiments.baselines.convolutional_network import (
    convolutional_network,
)
from attention_sampling.experiments.baselines.deep_mil import deep_mil
from attention_sampling.experiments.baselines.extract_grid import ExtractGrid
from attention_sampling.experiments.baselines.uniform_attention import UniformAttention

__all__ = [
    "AreaDownsampling",
    "AttentionPooling",
    "ExtractGrid",
    "UniformAttention",
    "convolutional_network",
    "deep_mil",
]
