"""One job trained in every way it can be, side by side: centralised, each schedule, each silo alone.

``trunkline compare SPEC.yaml``; ``docs/compare.md`` describes the file and what the modes have in common.

``modes`` says what each mode is, ``source`` and ``specification`` read the file, ``plan`` lists the runs,
``runner`` starts each as a process of its own (``one_run``), ``summary`` draws the conclusions, and
``markdown``, ``page`` and ``plots`` show them. Only ``one_run`` and what it calls need torch.
"""
