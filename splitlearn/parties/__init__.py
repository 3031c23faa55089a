"""The two parties of a job, free of sockets: one code path for agent, worker and simulation."""

from splitlearn.parties.averaging import SiloAveraging, average_at_trunk
from splitlearn.parties.compute import ComputeThread, StuckError
from splitlearn.parties.evaluating import SiloEvaluation
from splitlearn.parties.meeting import (
    Judged,
    MeetingParty,
    SiloAtMeeting,
    is_meeting,
    meeting_of,
)
from splitlearn.parties.plan import (
    Turn,
    averages_after,
    evaluates_after,
    evaluates_finished,
    turns_of_round,
)
from splitlearn.parties.progress import (
    BlocksAveraged,
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
from splitlearn.parties.replicas import Conversations, JoinedTables, Peers, PeersAtHand
from splitlearn.parties.round_table import RoundTable, SiloAwayError, SiloLeftError
from splitlearn.parties.silo import SiloParty
from splitlearn.parties.summarising import phases_of, summaries_of
from splitlearn.parties.trunk import TrunkParty
from splitlearn.parties.watched_rounds import WatchedRounds

__all__ = [
    "BlocksAveraged",
    "ComputeThread",
    "Conversations",
    "Evaluated",
    "JobFinished",
    "JoinedTables",
    "Judged",
    "MeetingParty",
    "OnProgress",
    "Peers",
    "PeersAtHand",
    "Progress",
    "RoundFinished",
    "RoundTable",
    "SiloAtMeeting",
    "SiloAveraging",
    "SiloAwayError",
    "SiloEvaluation",
    "SiloLeftError",
    "SiloParty",
    "StepDone",
    "StuckError",
    "TrunkParty",
    "TrunkStepped",
    "Turn",
    "TurnFinished",
    "TurnStarted",
    "WatchedRounds",
    "average_at_trunk",
    "averages_after",
    "evaluates_after",
    "evaluates_finished",
    "ignore_progress",
    "is_meeting",
    "meeting_of",
    "phases_of",
    "summaries_of",
    "turns_of_round",
]
