"""The stage: two servers, API, gateway, workers and agents, each killed, frozen and started again by name.

::

    database    PostgreSQL        api         trunkline api        agent-<silo>   trunkline-agent run
    broker      Redis             gateway     trunkline gateway    child-<silo>   the process of a job there
                                  worker-1    trunkline worker

Nothing looks after what was killed but whoever killed it: that is an operator's process manager here. A job's
process is started again by its agent alone.
"""

import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2
import psutil

from bench.stage.client import PatientControlPlane
from bench.stage.inputs import StageInputs
from bench.stage.programs import Places, environment, program
from bench.stage.results import Finished, read_finished, read_numbers
from bench.stage.servers import OwnServer
from bench.stage.steps import StepCounter
from splitlearn.errors import ProcessError, TrainingError
from splitlearn.loopback import UNPROXIED
from splitlearn.processes import Child, free_port
from splitlearn.simulation.platform.control_plane import ControlPlane
from splitlearn.spec import JobSpec
from splitlearn.tasks import write_records

T = TypeVar("T")
ENDED = frozenset({"completed", "failed", "cancelled"})
WAIT_SECONDS = 420.0
_POLL_SECONDS = 0.1
_END_POLL_SECONDS = 0.5
"""For a job's end: every question costs the API some 25 ms of the cores that the job trains on."""
_STOP_SECONDS = 20.0
_FIRST_ADMIN = re.compile(r"user (\S+), password (\S+)")


class Stage:
    """Parts by name; see the module.

    Args:
        folder: Gets every part's state and log.
        inputs: Model and rows.
        database: Runs.
        broker: Runs.
        num_workers: Workers, each with a folder of its own.
        environments: By part, what its environment says besides; read at each start, so a test may change
            ``stage.environments`` in between.
        gateway_url: Where parties find the gateway, if not where it listens: a proxy of the test.
        public_url: Where parties find the API, if not where it listens.
        ports: Of API and gateway, for whoever has to know them before.
    """

    def __init__(
        self,
        folder: Path,
        inputs: StageInputs,
        *,
        database: OwnServer,
        broker: OwnServer,
        num_workers: int = 1,
        environments: Mapping[str, Mapping[str, str]] | None = None,
        gateway_url: str | None = None,
        public_url: str | None = None,
        ports: tuple[int, int] | None = None,
    ) -> None:
        self.folder, self.inputs = folder, inputs
        self.servers = {"database": database, "broker": broker}
        self.workers = tuple(f"worker-{number}" for number in range(1, num_workers + 1))
        api_port, gateway_port = ports or (free_port(), free_port())
        self.places = Places(
            folder=folder,
            database_url=database.url,
            broker_url=broker.url,
            api_port=api_port,
            gateway_port=gateway_port,
            public_url=public_url or f"http://127.0.0.1:{api_port}",
            gateway_url=gateway_url or f"ws://127.0.0.1:{gateway_port}/relay",
            watch_ports={worker: free_port() for worker in self.workers},
            models=inputs.model_folder.resolve().parent,
            standings_token=secrets.token_urlsafe(32),
        )
        self.environments = {part: dict(own) for part, own in (environments or {}).items()}
        self._children: dict[str, Child] = {}
        self._steps = StepCounter(self.places.watch_ports)
        self._admin: ControlPlane | None = None

    # Beginning and end

    @property
    def silos(self) -> tuple[str, ...]:
        """The roster."""
        return tuple(silo.name for silo in self.inputs.spec.silos)

    @property
    def admin(self) -> ControlPlane:
        """A signed-in client that waits while the API is away."""
        assert self._admin is not None, "not started"
        return self._admin

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Start everything, and stop everything at the end."""
        try:
            self._start()
            yield self
        finally:
            self.close()

    def close(self) -> None:
        """Stop every part; the servers are whoever's who made them."""
        if self._admin is not None:
            self._admin.close()
        self._steps.close()
        # Parties first: they say goodbye to API and gateway, and wait for them where they are gone.
        parties = [child for part, child in self._children.items() if part not in {"api", "gateway"}]
        for child in self._children.values():
            child.signal(signal.SIGCONT)  # one that is frozen cannot end in order
        for child in parties:
            child.ask_to_stop()
        for child in (*parties, *self._children.values()):
            child.stop()

    def _start(self) -> None:
        self._run_command("db", "upgrade")
        self.start("api")
        self._admin = PatientControlPlane(self.places.api_url)
        found = self.wait(lambda: _FIRST_ADMIN.search(self.log_of("api")), what="the first admin")
        self._admin.sign_in(found[1], found[2])
        self.start("gateway")
        for worker in self.workers:
            invitation = {"TRUNKLINE_WORKER_INVITATION": self._invite("workers", worker)}
            self.environments[worker] = {**self.environments.get(worker, {}), **invitation}
            self.start(worker)
        source = f"folder:{self.inputs.model_folder.resolve()}"
        self._admin.call("POST", "/models", {"name": self.inputs.model, "source": source})
        self._enrol_silos()
        for silo in self.silos:
            self.start(f"agent-{silo}")
        self.wait(self._are_all_there, what="model, data sets and workers")

    def _are_all_there(self) -> bool:
        announced = {item["silo"] for item in self.admin.call("GET", "/datasets")["items"]}
        ready = self.admin.call("GET", f"/models/{self.inputs.model}")["state"] == "ready"
        return ready and announced == set(self.silos) and all(map(self._takes_tasks, self.workers))

    def _takes_tasks(self, worker: str) -> bool:
        return "worker_ready" in self.log_of(worker)

    def _enrol_silos(self) -> None:
        for silo, records in self.inputs.rows.items():
            write_records(self.folder / f"{silo}.jsonl", records)
        for words in (["enroll", "-"], ["data", "add"]):
            running = [self._agent_command(silo, words) for silo in self.silos]
            for process in running:
                output, _ = process.communicate(timeout=WAIT_SECONDS)
                if process.returncode:
                    raise ProcessError(f"an agent refused {words[0]!r}: {output.decode()[-1000:]}")

    def _agent_command(self, silo: str, words: Sequence[str]) -> "subprocess.Popen[bytes]":
        is_enrolment = words[0] == "enroll"
        dataset = next(item.dataset for item in self.inputs.spec.silos if item.name == silo)
        more = () if is_enrolment else (dataset, str(self.folder / f"{silo}.jsonl"))
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module, no shell
            [sys.executable, "-m", "client_agent", *words, *more],
            env=self._environment(f"agent-{silo}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert process.stdin is not None
        with process.stdin as stdin:  # a secret: command lines are for all to read
            stdin.write(self._invite("silos", silo).encode() if is_enrolment else b"")
        process.stdin = None
        return process

    def _invite(self, kind: str, name: str) -> str:
        text: str = self.admin.call("POST", f"/{kind}/invitations", {"name": name})["invitation"]
        return text

    # Parts

    def start(self, part: str, *, waits: bool = True) -> None:
        """Start a part that does not run, on what it left.

        Args:
            part: Its name; a job's process is its agent's to start.
            waits: Until it answers; agents and workers are not waited for.
        """
        if part in self.servers:
            self.servers[part].start()
            return
        made = program(self.places, part, self.environments.get(part, {}))
        self._children[part] = child = Child(made, log_folder=self.folder / "logs")
        child.start()
        health = self.places.health.get(part)
        if waits and health is not None:
            child.wait_until(lambda: _answers(health), timeout_seconds=WAIT_SECONDS)

    def kill(self, part: str) -> None:
        """SIGKILL; returns when it is gone."""
        if part in self.servers:
            self.servers[part].kill()
        elif part.startswith("child-"):
            self._kill_all(self.job_processes(part.removeprefix("child-")))
        else:
            child = self._children[part]
            if part in self.workers:
                self._steps.look(part, child.pid)  # it takes its count with it
            child.signal(signal.SIGKILL)
            self.wait(lambda: not child.is_running, what=f"the end of {part}")

    def stop(self, part: str) -> None:
        """End a part of ours in order, by SIGTERM; returns when it is gone."""
        self._children[part].stop()

    def freeze(self, part: str) -> None:
        """SIGSTOP."""
        self._children[part].signal(signal.SIGSTOP)

    def thaw(self, part: str) -> None:
        """SIGCONT."""
        self._children[part].signal(signal.SIGCONT)

    def pid(self, part: str) -> int:
        """Return a part's process id."""
        return self.servers[part].pid if part in self.servers else self._children[part].pid

    def is_running(self, part: str) -> bool:
        """Return whether a part was started and has not ended."""
        return self._children[part].is_running

    def processes(self) -> dict[str, int]:
        """Return the process ids of all parts that run, servers' and jobs' processes too."""
        found = {name: server.pid for name, server in self.servers.items()}
        found |= {name: child.pid for name, child in self._children.items() if child.is_running}
        for silo in self.silos:
            found |= {f"child-{silo}": process.pid for process in self.job_processes(silo)}
        return found

    def job_processes(self, silo: str) -> list[psutil.Process]:
        """Return an agent's processes of jobs: the children of its child, the forker."""
        try:
            forkers = psutil.Process(self.pid(f"agent-{silo}")).children()
            return [process for forker in forkers for process in forker.children()]
        except psutil.NoSuchProcess:
            return []

    def log_of(self, part: str) -> str:
        """Return what a part has said since the stage began."""
        if part in self.servers:
            return self.servers[part].log.read_text(errors="replace")
        path = self.folder / "logs" / f"{part}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _kill_all(self, processes: Sequence[psutil.Process]) -> None:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=_STOP_SECONDS)

    def _environment(self, part: str) -> dict[str, str]:
        return environment(self.places, part, self.environments.get(part, {}))

    def _run_command(self, *words: str) -> None:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module, no shell
            [sys.executable, "-m", "backend.cli", *words],
            check=False,
            capture_output=True,
            text=True,
            env=self._environment("api"),
            timeout=WAIT_SECONDS,
        )
        if done.returncode:
            raise ProcessError(
                f"trunkline {' '.join(words)} ended with code {done.returncode}: {done.stderr}"
            )

    # Jobs

    def submit(self, spec: JobSpec) -> str:
        """Submit a job; returns its id."""
        job: str = self.admin.call("POST", "/jobs", {"spec": spec.model_dump(mode="json")})["id"]
        return job

    def job(self, job: str) -> dict[str, Any]:
        """Return a job as the API shows it."""
        found: dict[str, Any] = self.admin.call("GET", f"/jobs/{job}")
        return found

    def events(self, job: str, kind: str) -> list[dict[str, Any]]:
        """Return a job's events of one kind, oldest first."""
        return [event for event in self.admin.events(job) if event["kind"] == kind]

    def wait_for_end(self, job: str, *, timeout_seconds: float = WAIT_SECONDS) -> None:
        """Wait for a job's completion.

        Raises:
            TrainingError: It ended otherwise.
            ProcessError: It is late.
        """

        def ended() -> dict[str, Any] | None:
            found = self.job(job)
            return found if found["state"] in ENDED else None

        what = f"the end of job {job}"
        found = self.wait(ended, what=what, timeout_seconds=timeout_seconds, pause_seconds=_END_POLL_SECONDS)
        if found["state"] != "completed":
            raise TrainingError(f"the job is {found['state']}: {found['reason']}; logs in {self.folder}/logs")

    def finish(self, job: str, *, timeout_seconds: float = WAIT_SECONDS) -> Finished:
        """Wait for a job's completion, and return what it left; errors as of :meth:`wait_for_end`."""
        self.wait_for_end(job, timeout_seconds=timeout_seconds)
        folders = {silo: self.result_folder(silo, job) for silo in self.silos}
        return read_finished(self.admin, job, folders)

    def result_folder(self, silo: str, job: str) -> Path:
        """Return where an agent keeps its result of a job."""
        return self.folder / f"agent-{silo}" / "jobs" / job / "result"

    def numbers(self, job: str) -> Iterator[dict[str, Any]]:
        """Yield every number that parties have reported of a job."""
        return read_numbers(self.admin, job)

    # Progress, as the workers themselves count it: also while the API is away

    def steps_done(self) -> int:
        """Return the trunk's steps of all workers since the stage began, those trained again too."""
        for worker in self.workers:
            self._steps.look(worker, self._children[worker].pid)
        return self._steps.total

    def wait_for_steps(self, number: int, *, since: int | None = None) -> int:
        """Wait until so many more steps were trained; returns the count then."""
        begin = self.steps_done() if since is None else since

        def done() -> int | None:
            steps = self.steps_done()
            return steps if steps >= begin + number else None

        steps: int = self.wait(done, what=f"{number} more steps")
        return steps

    def wait(
        self,
        find: Callable[[], T],
        *,
        what: str,
        timeout_seconds: float = WAIT_SECONDS,
        pause_seconds: float = _POLL_SECONDS,
    ) -> Any:
        """Ask until something is found; returns it.

        Raises:
            ProcessError: It did not come in time.
        """
        deadline = time.monotonic() + timeout_seconds
        while not (found := find()):
            if time.monotonic() > deadline:
                raise ProcessError(f"{what} did not come within {timeout_seconds:g} s; logs in {self.folder}")
            time.sleep(pause_seconds)
        return found


def _answers(url: str) -> bool:
    try:
        with httpx2.Client(mounts=UNPROXIED, timeout=2.0) as client:
            return client.get(url).is_success
    except httpx2.HTTPError:
        return False
