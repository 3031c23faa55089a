"""What both sides of the cut must agree on: the split model, the sealed channel, the conversation."""

__version__ = "0.1.0"
