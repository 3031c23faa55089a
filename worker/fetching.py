"""Brings a trunk's layers here, unless there is no hope that they fit."""

from splitlearn.control_plane.models import fetch_manifest, fetch_model, manifest_digest
from splitlearn.planning import Role
from splitlearn.spec import JobSpec
from worker.memory import Demand, refuse_too_large
from worker.station import Station


async def fetch_demand(station: Station, spec: JobSpec) -> Demand:
    """Download the trunk's layers of a job, and return what the job asks of this worker's memory.

    Raises:
        TrunkTooLargeError: They certainly do not fit.
        TrunklineError: They cannot be had.
    """
    cut, digest = spec.silos[0].cut, manifest_digest(spec.model)
    path = await station.home.ask(
        lambda client: fetch_model(
            client,
            digest,
            roles=[Role.TRUNK],
            bottom_layers=cut.bottom_layers,
            top_layers=cut.top_layers,
            cache=station.models,
            tokenizer=False,
        )
    )
    manifest = await station.home.ask(lambda client: fetch_manifest(client, digest, station.models))
    station.used(digest)
    folder = manifest.folder(path)  # which knows all tensors' sizes, and needs the trunk's files alone
    demand = Demand(
        spec,
        folder,
        folder.cut(bottom_layers=cut.bottom_layers, top_layers=cut.top_layers),
        on_heap=any(device.type == "cpu" for device in station.devices),
    )
    refuse_too_large(demand, station.describe_devices())
    return demand
