"""The paper's experiments, measured again: networks, methods, training, cost and report."""

from attention_sampling.experiments.pretrained import load_pretrained

__all__ = ["load_pretrained"]
