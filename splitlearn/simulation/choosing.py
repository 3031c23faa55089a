"""What ``schedule: auto`` becomes in one process, which is one worker with all of this machine's memory."""

import os

from splitlearn.planning import (
    DEFAULT_SCHEDULE,
    NOMINAL_SPEED,
    Candidate,
    Choice,
    Cores,
    Host,
    ModelFolder,
    Role,
    SiloPlace,
    Surroundings,
    Training,
    choose_schedule,
    estimate_memory,
    possible_schedules,
    predict,
    with_schedule,
)
from splitlearn.spec import JobSpec

AUTO = "auto"


def choose_here(spec: JobSpec, folder: ModelFolder, *, memory_bytes: int | None = None) -> Choice:
    """Choose the schedule of a job whose parties are all threads of this process.

    It hangs on nothing that changes from one start to the next, so a resumed run is the same job.

    Args:
        spec: The job, with schedule ``auto``.
        folder: Its model.
        memory_bytes: Of this machine; None to ask it.
    """
    layers = spec.silos[0].cut
    cut = folder.cut(bottom_layers=layers.bottom_layers, top_layers=layers.top_layers)
    around = Surroundings(
        trunks=[NOMINAL_SPEED],
        silos={silo.name: SiloPlace(NOMINAL_SPEED) for silo in spec.silos},
        cores=Cores(number=1, is_one_process=True),
    )
    candidates = [
        Candidate(
            each,
            estimate_memory(folder, cut, Role.TRUNK, Training.of(each, Role.TRUNK)).total,
            predict(each, folder, cut, around),
        )
        for each in possible_schedules(spec, num_hosts=1, hierarchical=False)
    ]
    memory = memory_of_machine() if memory_bytes is None else memory_bytes
    return choose_schedule(candidates, [Host("this process", memory)])


def refuse_unserved_but_open(spec: JobSpec, *, on_platform: bool) -> None:
    """Refuse what is not served; that the schedule is left open, is.

    Args:
        spec: The job.
        on_platform: By its processes, or by one process.

    Raises:
        UnservedError: Names every such field.
    """
    closed = with_schedule(spec, DEFAULT_SCHEDULE) if spec.schedule == AUTO else None
    (closed or spec).refuse_unserved(on_platform=on_platform)


def memory_of_machine() -> int:
    """Return the bytes of main memory; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0
