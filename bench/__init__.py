"""What is fast enough is measured here, as ratios within one run, never asserted by a timed test.

Each benchmark runs alone, prints a table and writes ``--json PATH``, whose ``rows`` carry ``ratio``:

``python -m bench.split_step``   a sealed split step over a loopback websocket, against the whole model
``python -m bench.channel``      seal, open and decode, against plain AES-GCM and copying memory
"""
