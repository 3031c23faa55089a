"""``python -m splitlearn.simulation``: the same as ``trunkline``."""

from splitlearn.interruptible import interruptible

with interruptible("trunkline demo"):
    from splitlearn.simulation.cli import main

    main()
