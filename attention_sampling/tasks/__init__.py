"""The paper's three experiments, and their models for every method it compares."""

from attention_sampling.tasks.experiments import TASKS
from attention_sampling.tasks.method import Method, parse_method
from attention_sampling.tasks.models import build_model
from attention_sampling.tasks.task import PublishedRow, Task

__all__ = [
    "TASKS",
    "Method",
    "PublishedRow",
    "Task",
    "build_model",
    "parse_method",
]
