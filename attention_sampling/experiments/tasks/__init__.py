"""The paper's three experiments, and their models for every method it compares."""

from attention_sampling.experiments.tasks.experiments import TASKS
from attention_sampling.experiments.tasks.method import Method, parse_method
from attention_sampling.experiments.tasks.models import build_model
from attention_sampling.experiments.tasks.task import PublishedRow, Task

__all__ = [
    "TASKS",
    "Method",
    "PublishedRow",
    "Task",
    "build_model",
    "parse_method",
]
