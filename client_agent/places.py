"""Where everything of an agent lies in its state folder."""

import fcntl
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from splitlearn.errors import StorageError

_LOOK_SECONDS = 0.1
_JOB_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class JobRunsError(StorageError):
    """A job's folder is in use by the process that trains it."""

    code = "job_runs"


class UnknownJobError(StorageError):
    """No such job in the state folder."""

    code = "unknown_job"


@dataclass(frozen=True, slots=True)
class JobFolder:
    """What the agent keeps of one job.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.path.name

    @property
    def record(self) -> Path:
        """What is known of the job, for ``status``."""
        return self.path / "job.json"

    @property
    def checkpoints(self) -> Path:
        """The last two rounds' checkpoints."""
        return self.path / "checkpoints"

    @property
    def averaged(self) -> Path:
        """The last two rounds' checkpoints with the average of all silos' blocks, where replicas meet."""
        return self.path / "averaged"

    def saved_rounds(self) -> frozenset[str]:
        """Return the names of the rounds' checkpoints; another answer later means that the job got on."""
        found = (*self.checkpoints.glob("round-*"), *self.averaged.glob("round-*"))
        return frozenset(f"{path.parent.name}/{path.name}" for path in found)

    def trunk_result(self, digest: str) -> Path:
        """Return where the trunk's trained tensors of this digest lie, as they came."""
        return self.path / f"trunk-{digest}.safetensors"

    @property
    def result(self) -> Path:
        """The silo's whole result."""
        return self.path / "result"

    def result_of(self, job_id: str) -> Path:
        """Return where this silo's whole result of another job lies, or lay."""
        return JobFolder(self.path.with_name(job_id)).result

    @property
    def traffic(self) -> Path:
        """Bytes that crossed up to the last rounds."""
        return self.path / "traffic.json"

    @property
    def meetings_traffic(self) -> Path:
        """Bytes that crossed where replicas met, up to the last rounds."""
        return self.path / "traffic-meetings.json"

    @property
    def sums(self) -> Path:
        """What was summed with other silos, so that it is never summed again without one of them."""
        return self.path / "sums.json"

    @property
    def unsent_metrics(self) -> Path:
        """Metrics that the control plane has not accepted yet."""
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        """The job's log."""
        return self.path / "agent.log"

    @contextmanager
    def held(self, *, wait_seconds: float = 0.0) -> Iterator[None]:
        """Keep every other process out of the folder; the kernel lets go when this one dies.

        Args:
            wait_seconds: How long another process may take to let go.

        Raises:
            JobRunsError: Another process holds it.
            StorageError: The folder cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (self.path / "lock").open("ab")
        except OSError as error:
            raise StorageError(
                f"cannot write to {self.path} ({error.strerror}); free space or correct its permissions"
            ) from error
        with lock:
            until = time.monotonic() + wait_seconds
            while not _locked(lock):
                if time.monotonic() >= until:
                    raise JobRunsError(
                        f"job {self.job_id} is running here; stop the agent or cancel the job first"
                    )
                time.sleep(_LOOK_SECONDS)
            yield


def _locked(file: BinaryIO) -> bool:
    """Lock a file, unless another process has done so; return whether it is ours."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class AgentFolder:
    """An agent's state folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def models(self) -> Path:
        """Cache of the layers of models that this silo needs; may be deleted at any time."""
        return self.path / "models"

    @property
    def log(self) -> Path:
        """The supervisor's log."""
        return self.path / "logs" / "agent.log"

    @property
    def forker_log(self) -> Path:
        """What the process that forks the jobs' processes has to say."""
        return self.path / "logs" / "forker.log"

    def job(self, job_id: str) -> JobFolder:
        """Return a job's folder, whether it is there or not."""
        assert _JOB_ID.fullmatch(job_id), "an id from elsewhere is checked before it becomes a path"
        return JobFolder(self.path / "jobs" / job_id)

    def jobs(self) -> list[JobFolder]:
        """Return the folders of all jobs, by id."""
        jobs = self.path / "jobs"
        if not jobs.is_dir():
            return []
        return [JobFolder(path) for path in sorted(jobs.iterdir()) if _JOB_ID.fullmatch(path.name)]

    def find_job(self, word: str) -> JobFolder:
        """Return the job whose id is, or begins with, a word that a person typed.

        Raises:
            UnknownJobError: None, or several, do.
        """
        found = [job for job in self.jobs() if job.job_id.startswith(word)]
        if len(found) == 1:
            return found[0]
        which = "several jobs' ids begin" if found else "no job's id begins"
        raise UnknownJobError(
            f"{which} with {word!r} in {self.path}; trunkline-agent status lists the jobs that are kept here"
        )
