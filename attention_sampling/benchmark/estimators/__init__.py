"""Bias, variance and cost of the estimators."""
