"""The processes of a demo: ``trunkline up`` and one agent per silo, each with a folder of its own.

::

    <run>/platform/                    state of ``trunkline up``: database, artifacts, broker, logs
    <run>/platform/deployment.json     ports, log-in and job of this run; for its owner only
    <run>/silos/<name>/rows.jsonl      a silo's rows, as an agent's owner would have them
    <run>/silos/<name>/agent/          the agent's state: identity, checkpoints, result
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from splitlearn.errors import ProcessError, StorageError
from splitlearn.party_environment import party_environment
from splitlearn.processes import Child, Program, free_port
from splitlearn.simulation.json_files import write_json
from splitlearn.simulation.platform.control_plane import ControlPlane
from splitlearn.simulation.platform.memory import peak_memory_of

PLATFORM = "platform"
_UP_SECONDS = 120.0
_COMMAND_SECONDS = 120.0
_UP_STOP_SECONDS = 40.0
_AGENT_STOP_SECONDS = 15.0
_MAX_WORDS = 500
_OWN_ROLES = ("api", "gateway")  # the others report their own


class Saved(BaseModel):
    """What a later run has to know to go on with this one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    port: int
    gateway_port: int
    admin: str = ""
    password: str = ""
    job_id: str | None = None
    last_round: int = 0


class Deployment:
    """Starts and stops the processes of one run.

    Args:
        work_dir: The run's folder.
        environment: What the processes inherit.
        threads: Threads of torch, per party.
        model_folder: The model, which the control plane may read.
    """

    def __init__(
        self, work_dir: Path, *, environment: Mapping[str, str], threads: int, model_folder: Path
    ) -> None:
        self._work_dir, self._environment = work_dir, environment
        self._threads, self._model_folder = threads, model_folder
        self.saved = self._read() or Saved(port=free_port(), gateway_port=free_port())
        self._up: Child | None = None
        self._agents: dict[str, Child] = {}
        self._pids: dict[str, int] = {}

    @property
    def folder(self) -> Path:
        """State of the control plane, its gateway and worker."""
        return self._work_dir / PLATFORM

    @property
    def is_begun(self) -> bool:
        """Whether an earlier run has submitted its job."""
        return self.saved.job_id is not None

    def agent_dir(self, silo: str) -> Path:
        """Return an agent's state folder."""
        return self._work_dir / "silos" / silo / "agent"

    def rows_file(self, silo: str) -> Path:
        """Return where a silo's rows lie."""
        return self._work_dir / "silos" / silo / "rows.jsonl"

    def remember(self, **changes: Any) -> None:
        """Keep what a later run has to know."""
        self.saved = self.saved.model_copy(update=changes)
        path = self._file
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.saved.model_dump(), mode=0o600)

    def start_platform(self) -> ControlPlane:
        """Start control plane, gateway and worker; return a signed-in client.

        Raises:
            ProcessError: A part did not come up.
        """
        self.remember()
        arguments = (
            *("-m", "backend.cli", "up", "--state-dir", str(self.folder)),
            *("--port", str(self.saved.port), "--gateway-port", str(self.saved.gateway_port)),
            *("--device", "cpu", "--threads", str(self._threads)),
            *("--models-from", str(self._model_folder.parent)),
        )
        self._up = Child(
            Program("up", arguments, self._environment, stop_seconds=_UP_STOP_SECONDS),
            log_folder=self.folder / "logs",
        )
        described = self.folder / "up.json"
        described.unlink(missing_ok=True)  # of a run that was killed
        self._up.start()
        self._up.wait_until(described.exists, timeout_seconds=_UP_SECONDS)
        content = json.loads(described.read_bytes())
        if content["admin"] is not None:
            self.remember(admin=content["admin"]["name"], password=content["admin"]["password"])
        self._pids = content["pids"]
        control_plane = ControlPlane(content["url"])
        try:
            control_plane.sign_in(self.saved.admin, self.saved.password)
        except BaseException:
            control_plane.close()
            raise
        return control_plane

    def enrol(self, silo: str, invitation: str) -> None:
        """Make a silo's identity.

        Raises:
            ProcessError: The agent refused.
        """
        self._agent_command(silo, ["enroll", "-"], standard_input=invitation)

    def add_data(self, silo: str, *, dataset: str) -> None:
        """Let a silo know its rows.

        Raises:
            ProcessError: The agent refused the rows.
        """
        self._agent_command(silo, ["data", "add", dataset, str(self.rows_file(silo))])

    def export(self, silo: str, *, job: str, target: Path) -> None:
        """Copy a silo's result to where its owner wants it.

        Raises:
            ProcessError: The agent refused.
        """
        self._agent_command(silo, ["export", job, str(target)])

    def start_agents(self, silos: Sequence[str]) -> None:
        """Start every silo's agent; they connect when they are ready."""
        for silo in silos:
            program = Program(
                f"agent-{silo}",
                ("-m", "client_agent", "run", "--threads", str(self._threads)),
                self._agent_environment(silo),
                stop_seconds=_AGENT_STOP_SECONDS,
            )
            self._agents[silo] = Child(program, log_folder=self.folder / "logs")
            self._agents[silo].start()

    def agent_pid(self, silo: str) -> int:
        """Return the process id of a silo's agent."""
        return self._agents[silo].pid

    def part_pid(self, name: str) -> int:
        """Return the process id of ``api``, ``gateway`` or a worker, as it was started first."""
        return self._pids[name]

    def peak_memory(self) -> dict[str, int]:
        """Return the largest memory so far of control plane and gateway, in bytes, where it can be known."""
        peaks = {role: peak_memory_of(self._pids[role]) for role in _OWN_ROLES if role in self._pids}
        return {role: peak for role, peak in peaks.items() if peak is not None}

    def refuse_dead(self) -> None:
        """Look after the processes.

        Raises:
            ProcessError: One has ended; with what it said last.
        """
        for child in self._children():
            if not child.is_running:
                raise ProcessError(
                    f"{child.program.name} {child.describe_end()}: {child.last_words()}; see {child.log_path}"
                )

    def stop(self) -> None:
        """Stop everything; agents first, so that they can say goodbye."""
        for child in self._agents.values():
            child.ask_to_stop()
        for child in self._children():
            child.stop()

    def _children(self) -> list[Child]:
        """Return what was started, the platform last."""
        return [*self._agents.values(), *([self._up] if self._up else [])]

    def _agent_command(self, silo: str, words: list[str], *, standard_input: str = "") -> None:
        # A secret goes in by standard input: command lines are for all to read.
        command = [sys.executable, "-m", "client_agent", *words]
        done = subprocess.run(  # noqa: S603 - our own interpreter and module, no shell
            command,
            input=standard_input,
            env=dict(self._agent_environment(silo)),
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[-_MAX_WORDS:]
            raise ProcessError(f"the agent of {silo!r} refused {words[0]!r}: {said}")

    def _agent_environment(self, silo: str) -> dict[str, str]:
        own = {"TRUNKLINE_AGENT_STATE_DIR": str(self.agent_dir(silo))}
        return party_environment({**self._environment, **own})

    @property
    def _file(self) -> Path:
        return self.folder / "deployment.json"

    def _read(self) -> Saved | None:
        try:
            return Saved.model_validate_json(self._file.read_bytes()) if self._file.exists() else None
        except (OSError, ValueError) as error:
            raise StorageError(f"{self._file} cannot be read: begin anew, without --resume") from error
