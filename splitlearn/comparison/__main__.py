"""``python -m splitlearn.comparison``: what ``trunkline compare`` becomes."""

from splitlearn.comparison.cli import main

main()
