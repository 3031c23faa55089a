"""The two parties of a job, free of sockets: one code path for agent, worker and simulation."""

from splitlearn.parties.compute import ComputeThread
from splitlearn.parties.plan import Turn, evaluates_after, turns_of_round
from splitlearn.parties.progress import (
    Evaluated,
    JobFinished,
    OnProgress,
    Progress,
    RoundFinished,
    StepDone,
    TrunkStepped,
    TurnFinished,
    TurnStarted,
    ignore_progress,
)
from splitlearn.parties.silo import SiloParty
from splitlearn.parties.trunk import TrunkParty

__all__ = [
    "ComputeThread",
    "Evaluated",
    "JobFinished",
    "OnProgress",
    "Progress",
    "RoundFinished",
    "SiloParty",
    "StepDone",
    "TrunkParty",
    "TrunkStepped",
    "Turn",
    "TurnFinished",
    "TurnStarted",
    "evaluates_after",
    "ignore_progress",
    "turns_of_round",
]
