"""Time and memory a sample: ``python -m attention_sampling experiments cost``."""
