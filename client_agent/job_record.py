"""What the agent remembers of a job, for its own people. Written by the supervisor alone."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from splitlearn.simulation.json_files import write_json


class JobRecord(BaseModel):
    """One job as this silo sees it.

    Attributes:
        state: The control plane's word.
        phase: What this silo does for it: ``preparing``, ``waiting``, ``training``, ``exporting``, or how
            its part ended: ``finished``, ``refused``, ``failed``, ``ended``.
        message: Why, for people.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    name: str
    dataset: str
    state: str
    phase: str
    message: str = ""
    updated_at: datetime

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the record, or None where there is none that can be read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, path: Path) -> None:
        """Put the record in the place of the one before.

        Raises:
            StorageError: The disk refused.
        """
        stamped = self.model_copy(update={"updated_at": datetime.now(tz=UTC)})
        write_json(path, stamped.model_dump(mode="json"), mode=0o600)
