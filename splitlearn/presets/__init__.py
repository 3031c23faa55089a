"""Named data sets as their publishers give them: how a file is read, what is asked, how it is scored.

A preset is a layout, a task of the specification and those of its publisher's metrics that are measured. Each
part is shown (``trunkline-agent data presets``), and each can be overridden. Torch-free; docs/tasks.md lists
them.
"""

from splitlearn.presets.preset import Preset, columns_of, overridden
from splitlearn.presets.table import PRESETS, find_preset

__all__ = ["PRESETS", "Preset", "columns_of", "find_preset", "overridden"]
