"""Child processes: started by a list of words, logged to a file, ended with their parent."""

from splitlearn.processes.child import Child, ChildDiedError, Program
from splitlearn.processes.ports import free_port, refuse_used_port

__all__ = ["Child", "ChildDiedError", "Program", "free_port", "refuse_used_port"]
