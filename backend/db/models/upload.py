"""Blobs that were sent, until something refers to them."""

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base


class Upload(Base):
    """An organisation sent these bytes, so it has them. An artifact takes the row's place, or time."""

    __tablename__ = "uploads"

    organization_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("organizations.id"), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    num_bytes: Mapped[int]
    uploaded_at: Mapped[datetime] = mapped_column(index=True)
