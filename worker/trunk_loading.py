"""The trunk of a lease, loaded and ready to compute, for whatever an attempt does with it."""

from contextlib import AsyncExitStack

from splitlearn.control_plane.schemas import LeaseAnswer
from splitlearn.parties import ComputeThread
from splitlearn.partition import TrunkSegment
from splitlearn.spec import JobSpec
from splitlearn.training import TrunkTrainer, replica_party
from worker.fetching import fetch_demand
from worker.memory import Demand, explain_out_of_memory, is_out_of_memory
from worker.starting import begin_trunk
from worker.station import Station


class LeasedTrunk:
    """The trunk of one attempt.

    Args:
        station: The worker.
        lease: Of the attempt.
    """

    def __init__(self, station: Station, lease: LeaseAnswer) -> None:
        self._station, self._lease = station, lease
        self._demand: Demand | None = None
        self.segment: TrunkSegment | None = None

    async def load(self, stack: AsyncExitStack, spec: JobSpec) -> tuple[TrunkTrainer, ComputeThread]:
        """Return the trunk as the job begins, and the thread that owns it.

        Args:
            stack: The thread ends with it.
            spec: The job.

        Raises:
            TrunkTooLargeError: It does not fit.
            TrunklineError: It cannot be had.
        """
        station, lease = self._station, self._lease
        self._demand = demand = await fetch_demand(station, spec)
        compute = await stack.enter_async_context(
            ComputeThread("trunk", patience_seconds=spec.patience_seconds)
        )
        self.segment = trunk = await compute(station.trunks.get, demand)
        folder = station.job_folder(lease.job)
        await begin_trunk(station.home, lease, spec, folder, trunk=trunk, compute=compute)
        return await compute(
            lambda: TrunkTrainer(trunk, spec=spec, party=replica_party(lease.replica))
        ), compute

    def explain(self, error: Exception) -> None:
        """Say what a failed allocation means; any other error says it itself.

        Raises:
            TrunkTooLargeError: It was one.
        """
        if self._demand is not None and is_out_of_memory(error):
            self._station.trunks.clear()
            raise explain_out_of_memory(self._demand, self._station.describe_devices()) from error
