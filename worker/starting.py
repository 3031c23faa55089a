"""Where a trunk begins, other than at the base model: at the result of an earlier job."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from splitlearn.control_plane.blobs import fetch_blob
from splitlearn.control_plane.schemas import LeaseAnswer
from splitlearn.errors import StorageError
from splitlearn.parties import ComputeThread
from splitlearn.partition import TrunkSegment, load_segment_state
from splitlearn.spec import JobSpec
from worker.home import Home


class StartGoneError(StorageError):
    """The result that a job begins at is not kept any more."""

    code = "start_gone"
    public = "the result of the earlier job, which this one begins at, is not kept any more"


async def begin_trunk(
    home: Home,
    lease: LeaseAnswer,
    spec: JobSpec,
    folder: Path,
    *,
    trunk: TrunkSegment,
    compute: ComputeThread,
) -> None:
    """Put the earlier job's result into a trunk that was just loaded, where the job begins at one.

    Also where a checkpoint follows: it holds what is trained, and no frozen half of an adapter.

    Args:
        home: The control plane's thread.
        lease: Names the result. The job's specification is signed, and names the earlier job.
        spec: The job.
        folder: Of the job, on this machine.
        trunk: As its model has it.
        compute: The thread that owns the trunk.

    Raises:
        StartGoneError: The control plane does not have it any more.
        StorageError: It cannot be read, or holds other tensors than the trunk's.
    """
    if spec.start_from is None:
        return
    start = lease.start
    if start is None:
        raise StartGoneError(
            f"start_from: the result of job {spec.start_from} is not kept any more; submit the job again, "
            "from a newer one"
        )
    path = folder / "start" / start.digest
    await home.ask(lambda client: fetch_blob(client, start, path))
    await compute(_begin, trunk, path)


def _begin(trunk: TrunkSegment, path: Path) -> None:
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"the result that the job begins at cannot be read from {path}: {error}; retry the job"
        ) from error
    load_segment_state(trunk, state)
