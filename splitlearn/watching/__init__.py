"""How a program is watched: who may read its numbers, and a small listener for them. Torch-free."""

from splitlearn.watching.access import may_read
from splitlearn.watching.listener import METRICS_TYPE, Status, WatchListener

__all__ = ["METRICS_TYPE", "Status", "WatchListener", "may_read"]
