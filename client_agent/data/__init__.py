"""The silo's data sets: which files they are, and what may be told of them."""

from client_agent.data.dataset import ANY_TASK, Dataset, TaskKind
from client_agent.data.registry import DatasetRegistry, UnknownDatasetError
from client_agent.data.survey import BadRowsError, Survey, survey

__all__ = [
    "ANY_TASK",
    "BadRowsError",
    "Dataset",
    "DatasetRegistry",
    "Survey",
    "TaskKind",
    "UnknownDatasetError",
    "survey",
]
