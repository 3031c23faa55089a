"""What happens in a project, numbered without gaps, and its stream."""

from backend.events.service import EventKind, emit

__all__ = ["EventKind", "emit"]
