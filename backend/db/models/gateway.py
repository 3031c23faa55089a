"""Gateways' signs of life, and which of them conversations meet at."""

import uuid
from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from backend.db.base import Base

MAX_URL = 255


class GatewaySign(Base):
    """A gateway that names itself asked for standings at this moment."""

    __tablename__ = "gateway_signs"

    url: Mapped[str] = mapped_column(String(MAX_URL), primary_key=True)
    seen_at: Mapped[datetime]


class Meeting(Base):
    """Where a silo and the worker of one replica meet, in one epoch."""

    __tablename__ = "meetings"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    replica: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    silo_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("silos.id"), primary_key=True, index=True)
    epoch: Mapped[int]
    gateway_url: Mapped[str] = mapped_column(String(MAX_URL))
    chosen_at: Mapped[datetime]
