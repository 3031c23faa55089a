"""What is fast enough is measured here, as ratios within one run, never asserted by a timed test.

Each benchmark runs alone, prints its tables and writes ``--json PATH``, whose ``rows`` carry ``ratio`` where
something is compared:

``python -m bench.split_step``   a sealed split step on the real platform, against the whole model
``python -m bench.channel``      seal, open and decode, against plain AES-GCM and copying memory
``python -m bench.gateway``      frames through the gateway, against a plain echo; connections that only wait
``python -m bench.agent_memory`` a silo's agent, against a client of federated averaging
``python -m bench.schedules``    all silos at once against one after another, over several round trips
``python -m bench.planner``      seconds, bytes and memory as planned, against measured ones
``python -m bench.startup``      from the command to the first step of a federation, and between rounds
``python -m bench.generate``     split generation, against the library's own on the whole model
"""
