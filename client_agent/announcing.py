"""What the control plane is told of the silo's data sets, and when."""

import asyncio
import logging

from client_agent.data import Dataset, DatasetRegistry
from client_agent.log import LOGGER, loggable
from splitlearn.control_plane.client import PartyClient
from splitlearn.errors import TrunklineError

_log = logging.getLogger(LOGGER)


class Announcer:
    """Announces all data sets at first, and again whenever the list or a file has changed.

    Args:
        registry: The silo's data sets.
        client: Of this silo.
    """

    def __init__(self, registry: DatasetRegistry, client: PartyClient) -> None:
        self._registry, self._client = registry, client
        self._announced: tuple[int, int] | None = None
        self._has_announced = False

    async def announce_changes(self) -> None:
        """Announce the data sets if something has changed since the last time.

        Raises:
            TrunklineError: The control plane refused; a damaged list is logged.
        """
        version = self._registry.version()
        if self._has_announced and version == self._announced:
            return
        datasets = await asyncio.to_thread(self._current)
        await self._client.put_datasets([dataset.announcement() for dataset in datasets])
        self._announced, self._has_announced = version, True
        names = ", ".join(f"{dataset.name} ({dataset.num_rows} rows)" for dataset in datasets)
        _log.info("announced the data sets: %s", names or "none")

    def _current(self) -> list[Dataset]:
        """Return the data sets as their files are now, without those that cannot be used."""
        found = []
        for dataset in self._registry.all():
            try:
                found.append(self._up_to_date(dataset))
            except TrunklineError as error:
                _log.warning("data set %s is not announced: %s", dataset.name, loggable(error))
        return found

    def _up_to_date(self, dataset: Dataset) -> Dataset:
        if not dataset.has_changed:
            return dataset
        again = dataset.read_again()
        _log.warning(
            "the file of data set %s has changed since it was added: %d rows, %d before",
            dataset.name,
            again.num_rows,
            dataset.num_rows,
        )
        self._registry.put(again, replace=True)
        return again
