"""All parts of the platform on one machine, each its own process: what ``trunkline up`` starts."""

from backend.embedded.stack import Stack, UpOptions

__all__ = ["Stack", "UpOptions"]
