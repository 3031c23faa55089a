"""The whole federation in one process over memory links, and the centralised reference beside it."""
