"""``python -m splitlearn.comparison``: what ``trunkline compare`` becomes."""

from splitlearn.interruptible import interruptible

with interruptible("trunkline compare"):
    from splitlearn.comparison.cli import main

    main()
