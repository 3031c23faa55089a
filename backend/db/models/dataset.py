"""What silos announce of their data: never a row of it."""

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base, Id, Name, Word


class Dataset(Base):
    """A data set's name, task, size and schema digest, as its silo announced them."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("silo_id", "name"),)

    id: Mapped[Id]
    silo_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("silos.id"))
    name: Mapped[Name]
    task: Mapped[Word]
    num_rows: Mapped[int]
    schema_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    announced_at: Mapped[datetime]
    withdrawn_at: Mapped[datetime | None]
