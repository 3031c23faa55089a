"""A whole platform as an operator would run it: every part and both servers are processes that may die."""

from bench.stage.client import PatientControlPlane
from bench.stage.inputs import StageInputs, make_inputs
from bench.stage.results import Finished
from bench.stage.servers import OwnServer, ServerAbsentError, own_postgresql, own_redis
from bench.stage.stage import ENDED, Stage

__all__ = [
    "ENDED",
    "Finished",
    "OwnServer",
    "PatientControlPlane",
    "ServerAbsentError",
    "Stage",
    "StageInputs",
    "make_inputs",
    "own_postgresql",
    "own_redis",
]
