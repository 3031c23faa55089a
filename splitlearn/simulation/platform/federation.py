"""The demo's job on the real platform: processes, REST, gateway, Celery; the same code computes."""

import math
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from splitlearn.errors import StorageError, TrainingError
from splitlearn.parties import OnProgress, Progress, RoundFinished, ignore_progress
from splitlearn.planning import with_schedule
from splitlearn.simulation.choosing import AUTO, refuse_unserved_but_open
from splitlearn.simulation.demo_options import name_of
from splitlearn.simulation.platform.control_plane import ControlPlane, wait_for
from splitlearn.simulation.platform.deployment import Deployment
from splitlearn.simulation.platform.numbers import JobNumbers, Point
from splitlearn.simulation.platform.stopwatch import Phase, Stopwatch
from splitlearn.simulation.results import SiloResult, SimulationResult, Status
from splitlearn.spec import ChoiceTask, JobSpec
from splitlearn.tasks import Record, SiloData, write_records

LOOK_SECONDS = 0.5
"""Two questions each, of some 25 ms of a core that the parties could train on."""
_READY_SECONDS = 120.0
_PAGE = 1000
_POINT = ("party", "name", "round", "step", "value")
_ENDED = frozenset({"completed", "failed", "cancelled"})


class PlatformFederation:
    """A job whose every party is a process; may be cancelled, and asked what is known so far.

    Args:
        spec: The job; its model is replaced by the name under which the folder is registered.
        model_folder: The model.
        data: Every silo's data, in the roster's order; only its report is used, the agents read ``rows``.
        rows: Every silo's rows.
        work_dir: The run's folder.
        threads: Threads of torch, per party.
        environment: What the processes inherit.
        keeps_running: Leave the processes running after a completed run, until :meth:`close`.
        look_seconds: Between two looks at the job; each costs the control plane some milliseconds.
        on_progress: Told of every step, evaluation and round.
        on_phase: Told, at its end, what each phase besides the training has done.
    """

    def __init__(
        self,
        spec: JobSpec,
        *,
        model_folder: Path,
        data: Sequence[SiloData],
        rows: Mapping[str, Sequence[Record]],
        work_dir: Path,
        threads: int,
        environment: Mapping[str, str],
        keeps_running: bool = False,
        look_seconds: float = LOOK_SECONDS,
        on_progress: OnProgress = ignore_progress,
        on_phase: Callable[[str], None] = lambda _: None,
    ) -> None:
        refuse_unserved_but_open(spec, on_platform=True)
        self._spec, self._data, self._rows, self._work_dir = spec, data, rows, work_dir
        self._threads, self._model_folder = threads, model_folder.resolve()
        self._forward = on_progress
        self._numbers = JobNumbers(is_choice=isinstance(spec.task, ChoiceTask), forward=self._progress)
        self._deployment = Deployment(
            work_dir, environment=environment, threads=threads, model_folder=self._model_folder
        )
        self._stopwatch, self._on_phase = Stopwatch(on_ended=on_phase), on_phase
        self._is_cancelled = threading.Event()
        self._exported: set[str] = set()
        self._peaks: dict[str, int] = {}
        self._keeps_running, self._look_seconds = keeps_running, look_seconds
        self._is_training = False
        self._control_plane: ControlPlane | None = None

    @property
    def last_round(self) -> int:
        """The last round that a resumed run goes on from; 0 for none."""
        return max(self._deployment.saved.last_round, self._numbers.last_round)

    @property
    def job_id(self) -> str | None:
        """The job's id at the control plane, once it was submitted."""
        return self._deployment.saved.job_id

    @property
    def deployment(self) -> Deployment:
        """The run's processes, for whoever looks at them."""
        return self._deployment

    @property
    def control_plane(self) -> ControlPlane:
        """A signed-in client, from the platform's start to its end."""
        assert self._control_plane is not None, "not started"
        return self._control_plane

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Where the time until the first step went, and what came after."""
        return tuple(self._stopwatch.phases)

    def find_last_round(self) -> int:
        """Return the last round that an earlier, interrupted run has finished.

        Raises:
            StorageError: There is no run to go on with.
        """
        if not self._deployment.is_begun:
            raise StorageError(
                f"{self._deployment.folder} holds no job to go on with; begin anew, without --resume"
            )
        return self.last_round

    def cancel(self) -> None:
        """Ask the run to end soon; from any thread, or from a signal handler."""
        self._is_cancelled.set()

    def run(self, *, resume: bool = False) -> SimulationResult:
        """Run the job to its end; once. Blocks.

        Raises:
            KeyboardInterrupt: :meth:`cancel` was called. A later run can go on.
            TrunklineError: Whatever ended the job before its end.
        """
        try:
            control_plane = self._start(resume=resume)
            self._follow(control_plane)
            self._export()
            self._peaks = self._deployment.peak_memory()
        except BaseException:
            self.close()
            raise
        if not self._keeps_running:
            self.close()
        return self.result("completed")

    def close(self) -> None:
        """Stop every process; what is on the disk stays."""
        if self._control_plane is not None:
            self._control_plane.close()
        self._deployment.stop()

    @property
    def address(self) -> str:
        """Where the control plane is, and who may sign in; for a run that is kept."""
        saved = self._deployment.saved
        return f"http://127.0.0.1:{saved.port}, user {saved.admin}, password {saved.password}"

    def result(self, status: Status) -> SimulationResult:
        """Return what is known so far; artifacts only of those that are whole."""
        per_step = self._numbers.seconds_per_step()
        return SimulationResult(
            status=status,
            spec=self._spec,
            threads=self._threads,
            silos=tuple(self._silo_result(data) for data in self._data),
            seconds_per_step=statistics.median(per_step) if per_step else math.nan,
            num_steps=self._numbers.num_steps(),
            peak_memory_bytes=self._peak_memory(),
            job_id=self.job_id,
            last_round=self._numbers.last_round,
        )

    # From nothing to a submitted job

    def _start(self, *, resume: bool) -> ControlPlane:
        self._check()
        if not resume:
            self._write_rows()
        control_plane = self._control_plane = self._deployment.start_platform()
        self._stopwatch.ended("control plane, gateway and worker started")
        self._check()
        if resume and self._deployment.is_begun:
            self._go_on(control_plane)
        else:
            self._begin(control_plane)
        return control_plane

    def _write_rows(self) -> None:
        for silo, records in self._rows.items():
            write_records(self._deployment.rows_file(silo), records)
        self._stopwatch.ended("rows written")

    def _begin(self, control_plane: ControlPlane) -> None:
        model = name_of(self._model_folder)
        control_plane.call("POST", "/models", {"name": model, "source": f"folder:{self._model_folder}"})
        for silo in self._spec.silos:
            self._check()
            answer = control_plane.call("POST", "/silos/invitations", {"name": silo.name})
            self._deployment.enrol(silo.name, answer["invitation"])
            self._deployment.add_data(silo.name, dataset=silo.dataset)
        self._stopwatch.ended("silos enrolled, rows checked")
        self._deployment.start_agents([silo.name for silo in self._spec.silos])
        self._await_model(control_plane, model)
        self._await_datasets(control_plane)
        self._stopwatch.ended("agents started")
        spec = self._spec.model_copy(update={"model": model})
        body = {"spec": spec.model_dump(mode="json")}
        if spec.schedule == AUTO:
            self._await_worker(control_plane, body)
        job = control_plane.call("POST", "/jobs", body)
        self._deployment.remember(job_id=job["id"])
        self._take_over(job)
        self._stopwatch.ended("job submitted")

    def _go_on(self, control_plane: ControlPlane) -> None:
        self._numbers.resumed_from = self.last_round
        self._deployment.start_agents([silo.name for silo in self._spec.silos])
        job = control_plane.call("GET", f"/jobs/{self.job_id}")
        self._take_over(job)
        if job["state"] in {"failed", "cancelled"}:
            control_plane.call("POST", f"/jobs/{self.job_id}/retry", {})
        self._stopwatch.ended("agents started")

    def _await_worker(self, control_plane: ControlPlane, body: Mapping[str, Any]) -> None:
        """Wait until the worker is online: a schedule is chosen by who is there when the job is submitted."""

        def find() -> bool | None:
            self._look_around()
            return True if control_plane.call("POST", "/jobs/plan", body)["placements"] else None

        wait_for(find, timeout_seconds=_READY_SECONDS, what="the worker")

    def _take_over(self, job: Mapping[str, Any]) -> None:
        """Go on with the schedule that the control plane has chosen, where it was left open."""
        if self._spec.schedule != AUTO:
            return
        found = job["schedule"]
        chosen = with_schedule(self._spec, found["chosen"], replicas=found["replicas"])
        assert chosen is not None, "it was chosen for this job"
        self._spec = chosen
        self._on_phase(f"schedule: {chosen.schedule} was chosen ({found['reason']})")

    def _await_model(self, control_plane: ControlPlane, model: str) -> None:
        def find() -> bool | None:
            self._look_around()
            found = control_plane.call("GET", f"/models/{model}")
            if found["state"] == "failed":
                raise TrainingError(f"the model could not be registered: {found['state_reason']}")
            return True if found["state"] == "ready" else None

        wait_for(find, timeout_seconds=_READY_SECONDS, what="the model's registration")

    def _await_datasets(self, control_plane: ControlPlane) -> None:
        wanted = {(silo.name, silo.dataset) for silo in self._spec.silos}

        def find() -> bool | None:
            self._look_around()
            items = control_plane.call("GET", "/datasets")["items"]
            return True if wanted <= {(item["silo"], item["name"]) for item in items} else None

        wait_for(find, timeout_seconds=_READY_SECONDS, what="the silos' announcement of their data")

    # From the submitted job to its end

    def _follow(self, control_plane: ControlPlane) -> None:
        cursor: str | None = None
        while True:
            job = control_plane.call("GET", f"/jobs/{self.job_id}")
            cursor = self._read_numbers(control_plane, cursor)
            if job["state"] in _ENDED:
                break
            self._look_around()
            self._is_cancelled.wait(self._look_seconds)
        self._read_numbers(control_plane, cursor)
        if job["state"] != "completed":
            reason = job["reason"]
            raise TrainingError(
                f"the job is {job['state']} at {reason['who']}, {reason['where']}: {reason['what']}; "
                f"{reason['next']}"
            )

    def _read_numbers(self, control_plane: ControlPlane, cursor: str | None) -> str | None:
        while True:
            query = {"limit": _PAGE, **({"after": cursor} if cursor else {})}
            page = control_plane.call("GET", f"/jobs/{self.job_id}/metrics", query=query)
            self._numbers.take(Point(**{name: item[name] for name in _POINT}) for item in page["items"])
            cursor = page["next"] or cursor
            if len(page["items"]) < _PAGE:
                return cursor

    def _progress(self, progress: Progress) -> None:
        if not self._is_training:
            self._is_training = True
            self._stopwatch.ended("first step")
        if isinstance(progress, RoundFinished):
            self._deployment.remember(last_round=progress.round)
        self._forward(progress)

    def _look_around(self) -> None:
        self._check()
        self._deployment.refuse_dead()

    def _check(self) -> None:
        if self._is_cancelled.is_set():
            raise KeyboardInterrupt

    def _export(self) -> None:
        assert self.job_id is not None
        for silo in self._spec.silos:
            target = self._artifact(silo.name)
            if not target.exists():
                self._deployment.export(silo.name, job=self.job_id, target=target)
            self._exported.add(silo.name)
        self._stopwatch.ended("results exported")

    # What it came to

    def _silo_result(self, data: SiloData) -> SiloResult:
        wire_bytes = self._numbers.wire_bytes(data.name)
        return SiloResult(
            name=data.name,
            report=data.report,
            steps=self._numbers.steps(data.name),
            evaluations=self._numbers.evaluations(data.name),
            wire_bytes=wire_bytes.training,
            eval_wire_bytes=wire_bytes.evaluation,
            resent_messages=self._numbers.resent_messages(data.name),
            artifact=self._artifact(data.name) if data.name in self._exported else None,
            result_round=self._result_round(),
        )

    def _result_round(self) -> int | None:
        best = self._numbers.best_round()
        return (self._numbers.last_round or None) if best is None else best

    def _artifact(self, silo: str) -> Path:
        return self._work_dir / "silos" / silo / "result"

    def _peak_memory(self) -> dict[str, int]:
        of_parties = {
            "agent": self._numbers.peak_memory_bytes("silo"),
            "worker": self._numbers.peak_memory_bytes("worker"),
        }
        return {**{role: peak for role, peak in of_parties.items() if peak is not None}, **self._peaks}
