"""The audit: who did what to whom, and whether it was allowed."""

from backend.audit.service import Actor, record

__all__ = ["Actor", "record"]
