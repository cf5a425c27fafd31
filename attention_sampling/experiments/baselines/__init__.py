"""What the paper compares attention sampling with.

Uniform sampling, a residual network on the whole image, and attention-based deep
multiple instance learning on the patches of a regular grid.
"""

from attention_sampling.experiments.baselines.convolutional_network import (
    AreaDownsampling,
    convolutional_network,
)
from attention_sampling.experiments.baselines.deep_mil import (
    AttentionPooling,
    ExtractGrid,
    deep_mil,
)
from attention_sampling.experiments.baselines.uniform_attention import UniformAttention

__all__ = [
    "AreaDownsampling",
    "AttentionPooling",
    "ExtractGrid",
    "UniformAttention",
    "convolutional_network",
    "deep_mil",
]
