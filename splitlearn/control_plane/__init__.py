"""A party's side of the control plane's REST API, and the schema that both ends share. Needs no torch.

The schema (:mod:`splitlearn.control_plane.schemas`) is imported by the control plane too, so this module
imports nothing: what a party calls lies in ``enrolment``, ``session``, ``client``, ``blobs``, ``models`` and
``connecting``.
"""
