"""Sessions of generation in the API, as people see them."""

import uuid
from datetime import datetime

from backend.db.models import GenerationState
from backend.schemas import Answer


class GenerationAnswer(Answer):
    """A session: who generated with a job's result, where, and how much; never what.

    Attributes:
        reason_code, reason: Why it is in its state.
        worker: Who hosts it, or did last.
        epoch: How many workers have got it.
        num_tokens: That workers computed, prompts included; told when a worker gives it back.
    """

    id: uuid.UUID
    silo: str
    state: GenerationState
    reason_code: str
    reason: str
    worker: str | None
    epoch: int
    num_tokens: int
    created_at: datetime
    heard_at: datetime
    ended_at: datetime | None
