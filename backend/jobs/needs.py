"""What jobs ask of a worker, from specification and manifest; neither changes, so it is found once."""

import threading
import uuid
from collections import OrderedDict

from sqlalchemy.orm import Session

from backend.db.models import Model
from backend.jobs.placing import Need
from splitlearn.planning import ModelManifest, Role, Training, estimate_memory
from splitlearn.spec import JobSpec

_KEPT = 4096


class Needs:
    """The needs of jobs as far as they were asked for; any thread may ask."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[uuid.UUID, bytes], Need] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, session: Session, model_id: uuid.UUID | None, spec_bytes: bytes) -> Need | None:
        """Return a job's need; None where its model was removed.

        Args:
            session: Of the database, asked once for each job.
            model_id: The job's model.
            spec_bytes: Its specification.
        """
        if model_id is None:
            return None
        key = model_id, spec_bytes
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        model = session.get(Model, model_id)
        if model is None or model.manifest is None:
            return None
        need = need_of(ModelManifest.model_validate(model.manifest), JobSpec.parse(spec_bytes))
        with self._lock:
            self._found[key] = need
            if len(self._found) > _KEPT:
                self._found.popitem(last=False)
        return need


def need_of(manifest: ModelManifest, spec: JobSpec) -> Need:
    """Return what a job with this specification asks for."""
    folder, layers = manifest.folder(), spec.silos[0].cut
    cut = folder.cut(bottom_layers=layers.bottom_layers, top_layers=layers.top_layers)
    memory = estimate_memory(folder, cut, Role.TRUNK, Training.of(spec, Role.TRUNK))
    return Need(
        model=manifest.digest(),
        family=manifest.family,
        precision=spec.precision,
        lasting_bytes=memory.lasting,
    )


NEEDS = Needs()
"""Of this process."""
