"""``python -m backend.cli``: the same as ``trunkline``."""

from backend.cli import main

main()
