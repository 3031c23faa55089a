"""``python -m splitlearn.simulation``: the same as ``trunkline``."""

from splitlearn.simulation.cli import main

main()
