from hashlib import sha256

import pytest

from backend.artifacts.errors import QuotaError, UnknownBlobError
from backend.db.models import ArtifactKind
from backend.settings import Settings
from tests.unit.backend.artifacts.conftest import Blobs, Shelf
from tests.unit.backend.conftest import ON_SQLITE_ALONE, Api, World

DATA = b"0123456789"


def limit(world: World, settings: Settings, **changes: int) -> None:
    object.__setattr__(world.server, "settings", settings.model_copy(update=changes))


def has(world: World, data: bytes) -> bool:
    return world.server.store.has(sha256(data).digest())


class TestPut:
    def test_what_was_sent_is_read(self, worker: Blobs) -> None:
        assert worker.put(DATA).status_code == 204
        assert worker.get(DATA).content == DATA

    def test_sending_it_again_changes_nothing(self, worker: Blobs) -> None:
        worker.put(DATA)
        assert worker.put(b"", digest=sha256(DATA).digest()).status_code == 204
        assert worker.get(DATA).content == DATA

    @ON_SQLITE_ALONE
    def test_passes_around_the_limit_of_other_bodies(self, world: World, worker: Blobs) -> None:
        data = bytes(world.server.settings.max_body_bytes + 1)
        assert worker.put(data).status_code == 204
        assert has(world, data)

    @ON_SQLITE_ALONE
    def test_comes_in_chunks_without_a_length(self, world: World, worker: Blobs) -> None:
        assert worker.put(DATA, chunks=[DATA[:3], DATA[3:]]).status_code == 204
        assert has(world, DATA)


@ON_SQLITE_ALONE
class TestPutRefusals:
    def test_other_bytes_than_announced(self, world: World, worker: Blobs) -> None:
        answer = worker.put(b"others", digest=sha256(DATA).digest())
        assert (answer.status_code, answer.json()["code"]) == (422, "wrong_digest")
        assert not has(world, b"others")

    def test_a_blob_over_its_own_limit(self, world: World, worker: Blobs, settings: Settings) -> None:
        limit(world, settings, max_blob_bytes=9)
        answer = worker.put(DATA)
        assert (answer.status_code, answer.json()["code"]) == (413, "blob_too_large")
        assert "TRUNKLINE_MAX_BLOB_BYTES" in answer.json()["remedy"]

    def test_more_than_anything_refers_to(self, world: World, worker: Blobs, settings: Settings) -> None:
        limit(world, settings, artifact_quota_bytes=10)
        assert worker.put(DATA).status_code == 204
        answer = worker.put(b"one more")
        assert (answer.status_code, answer.json()["code"]) == (507, "quota")

    def test_a_full_disk(self, world: World, worker: Blobs) -> None:
        world.server.store._reserve_bytes = 1 << 60
        answer = worker.put(DATA)
        assert (answer.status_code, answer.json()["code"]) == (507, "store_full")
        assert "nothing half-written was kept" in answer.json()["remedy"]


@ON_SQLITE_ALONE
class TestRead:
    @pytest.mark.parametrize(
        ("part", "content", "said"),
        [
            ("bytes=0-3", b"0123", "bytes 0-3/10"),
            ("bytes=7-", b"789", "bytes 7-9/10"),
            ("bytes=8-99", b"89", "bytes 8-9/10"),
        ],
    )
    def test_a_part(self, part: str, content: bytes, said: str, worker: Blobs) -> None:
        worker.put(DATA)
        answer = worker.get(DATA, part=part)
        assert (answer.status_code, answer.content) == (206, content)
        assert answer.headers["Content-Range"] == said

    @pytest.mark.parametrize("part", ["bytes=10-", "bytes=5-3", "bytes=-5", "bytes=0-1,4-5", "lines=1-2"])
    def test_a_part_that_is_none(self, part: str, worker: Blobs) -> None:
        worker.put(DATA)
        answer = worker.get(DATA, part=part)
        assert (answer.status_code, answer.json()["code"]) == (416, "range_refused")

    def test_size_alone(self, worker: Blobs) -> None:
        worker.put(DATA)
        answer = worker.get(DATA, method="HEAD")
        assert (answer.headers["Content-Length"], answer.content) == ("10", b"")
        assert answer.headers["ETag"] == f'"{sha256(DATA).hexdigest()}"'

    def test_an_empty_blob(self, worker: Blobs) -> None:
        worker.put(b"")
        assert (worker.get(b"").status_code, worker.get(b"").content) == (200, b"")


class TestOtherOrganisations:
    def test_see_nothing_of_it(self, worker: Blobs, foreign_worker: Blobs) -> None:
        worker.put(DATA)
        assert foreign_worker.get(DATA).status_code == 404

    def test_who_knows_the_digest_has_not_the_bytes(self, worker: Blobs, foreign_worker: Blobs) -> None:
        worker.put(DATA)
        assert foreign_worker.put(b"", digest=sha256(DATA).digest()).status_code == 422
        assert foreign_worker.get(DATA).status_code == 404

    def test_who_has_the_bytes_sends_them(self, worker: Blobs, foreign_worker: Blobs) -> None:
        worker.put(DATA)
        assert foreign_worker.put(DATA).status_code == 204
        assert foreign_worker.get(DATA).content == DATA

    def test_cannot_refer_to_it(self, worker: Blobs, foreign_admin: Api, shelf: Shelf) -> None:
        assert foreign_admin.token
        worker.put(DATA)
        with pytest.raises(UnknownBlobError):
            shelf.attach(DATA, organization="elsewhere")


class TestAttach:
    def test_people_read_what_a_job_refers_to(self, world: World, worker: Blobs, shelf: Shelf) -> None:
        worker.put(DATA)
        shelf.attach(DATA)
        assert Blobs(world.admin).get(DATA).content == DATA

    def test_what_was_never_sent_is_refused(self, shelf: Shelf) -> None:
        with pytest.raises(UnknownBlobError, match="of 10 bytes"):
            shelf.attach(DATA)

    def test_the_quota_counts_a_blob_once(
        self, world: World, worker: Blobs, shelf: Shelf, settings: Settings
    ) -> None:
        limit(world, settings, artifact_quota_bytes=15)
        worker.put(DATA)
        shelf.attach(DATA)
        shelf.attach(DATA)
        worker.put(b"six6ix")
        with pytest.raises(QuotaError, match="6 bytes more than the 10 used would pass the project's 15"):
            shelf.attach(b"six6ix")

    def test_what_the_server_made_needs_no_upload(self, world: World, shelf: Shelf) -> None:
        with world.server.store.writer(None, max_bytes=99) as writer:
            writer.write(DATA)
            writer.commit()
        assert shelf.attach(DATA, kind=ArtifactKind.MODEL_LAYER).num_bytes == 10
