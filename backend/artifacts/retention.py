"""Removing what nobody refers to any more."""

from datetime import datetime, timedelta

from backend.artifacts.repository import is_needed, lock_blob, remove_expired, remove_uploads
from backend.artifacts.store import ArtifactStore
from backend.db import Database

GRACE = timedelta(hours=1)
"""So long may a blob wait for its first reference, and may its upload take."""


def sweep(database: Database, store: ArtifactStore, *, now: datetime) -> int:
    """Remove expired references, then the blobs that nothing refers to; return how many blobs.

    Blobs of expired references go at once. Those that never had one, because a worker or this program
    ended in between, are found by their age. Never begun beside a model's registration: both are one
    thread's work, in one process at a time.
    """
    with database.write() as session:
        candidates = remove_expired(session, now=now) | remove_uploads(session, before=now - GRACE)
    candidates.update(store.older_than(now - GRACE))
    store.drop_unfinished(now - 24 * GRACE)
    return sum(_remove_unneeded(database, store, digest) for digest in sorted(candidates))


def _remove_unneeded(database: Database, store: ArtifactStore, digest: bytes) -> bool:
    with database.write(quietly=True) as session:  # which holds the blob's lock until it is gone
        lock_blob(session, digest)
        if is_needed(session, digest):
            return False
        store.delete(digest)
        return True
