"""Data sets as people see them; what a silo announces is in ``splitlearn.control_plane.schemas``."""

from datetime import datetime

from backend.schemas import Answer


class DatasetAnswer(Answer):
    """A data set that a silo announces.

    Attributes:
        task: What it is for: ``causal-lm``, ``sft``, ``choice``, or ``any``.
        schema_digest: SHA-256 over column names and kinds: equal where silos have the same columns.
        announced_at: When the silo last said so.
    """

    silo: str
    name: str
    task: str
    num_rows: int
    schema_digest: str
    announced_at: datetime
