"""Measurements of the package: ``python -m attention_sampling.benchmark``."""
