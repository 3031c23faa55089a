import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.utils._paths
import pytest

from backend.artifacts.retention import sweep
from backend.bootstrap import start
from backend.db.models import Job, JobState, Model
from backend.models.service import import_pending
from backend.settings import Settings
from splitlearn.planning import ModelManifest
from tests.unit.backend.conftest import ON_SQLITE_ALONE, Api, World

TENSORS = (
    "model.embed_tokens.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.norm.weight",
    "lm_head.weight",
)
WriteModel = Callable[..., Path]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(settings: Settings, sources: Path) -> Settings:
    return settings.model_copy(update={"model_sources": str(sources)})


@pytest.fixture
def write_model(sources: Path) -> WriteModel:
    """Write a llama of one layer, whose tensors are all zeros, byte by byte."""

    def write(name: str = "tiny", *, folder: Path = sources, **config: Any) -> Path:
        path = folder / name
        path.mkdir()
        stated = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 2, **config}
        (path / "config.json").write_text(json.dumps(stated))
        (path / "tokenizer.json").write_text("{}")
        header: dict[str, Any] = {
            tensor: {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * place, 16 * place + 16]}
            for place, tensor in enumerate(TENSORS)
        }
        text = json.dumps(header).encode()
        data = struct.pack("<Q", len(text)) + text + bytes(16 * len(TENSORS))
        (path / "model.safetensors").write_bytes(data)
        return path

    return write


def add(world: World, source: Path | str, *, name: str = "tiny") -> dict[str, Any]:
    """Add a model, and let the server's thread look once."""
    text = source if isinstance(source, str) else f"folder:{source}"
    world.admin.ok("POST", "/models", {"name": name, "source": text})
    import_pending(world.server)
    model: dict[str, Any] = world.admin.ok("GET", f"/models/{name}")
    return model


def failed(world: World, source: Path | str) -> str:
    """Return why a source was not registered."""
    model = add(world, source)
    assert model["state"] == "failed", model
    return str(model["state_reason"])


def manifest_of(api: Api, digest: str) -> ModelManifest:
    answer = api("GET", f"/models/manifests/{digest}")
    return ModelManifest.parse(answer.content, digest=digest)


class TestAdd:
    def test_a_model_is_importing_until_the_server_has_looked(
        self, world: World, write_model: WriteModel
    ) -> None:
        body = {"name": "tiny", "source": f"folder:{write_model()}"}
        assert world.admin.ok("POST", "/models", body)["state"] == "importing"

    def test_a_ready_model_tells_what_it_is(self, world: World, write_model: WriteModel) -> None:
        model = add(world, write_model())
        told = {
            name: model[name] for name in ("state", "family", "num_layers", "num_parameters", "num_bytes")
        }
        assert told == {
            "state": "ready", "family": "llama", "num_layers": 1, "num_parameters": 16, "num_bytes": 64,
        }  # fmt: skip

    def test_a_party_reads_manifest_and_files(self, world: World, write_model: WriteModel) -> None:
        digest = add(world, write_model())["digest"]
        silo = world.anybody.as_(world.enrolled("north").log_in()["token"])
        manifest = manifest_of(silo, digest)
        for file in (*manifest.files, *manifest.companions):
            assert len(silo("GET", f"/blobs/{file.digest}").content) == file.num_bytes

    def test_parties_do_not_learn_where_it_lies(self, world: World, write_model: WriteModel) -> None:
        path = write_model()
        digest = add(world, path)["digest"]
        assert manifest_of(world.admin, digest).source == "tiny"
        assert str(path.parent).encode() not in world.admin("GET", f"/models/manifests/{digest}").content

    @ON_SQLITE_ALONE
    def test_the_same_content_is_the_same_model(
        self, world: World, write_model: WriteModel, sources: Path
    ) -> None:
        (sources / "copy").mkdir()
        one = add(world, write_model(), name="one")
        two = add(world, write_model(folder=sources / "copy"), name="two")
        assert one["digest"] == two["digest"]

    def test_a_restarted_server_goes_on(
        self, world: World, write_model: WriteModel, settings: Settings
    ) -> None:
        world.admin.ok("POST", "/models", {"name": "tiny", "source": f"folder:{write_model()}"})
        server, _ = start(settings, clock=world.clock)
        import_pending(server)
        server.database.dispose()
        assert world.admin.ok("GET", "/models/tiny")["state"] == "ready"


class TestNames:
    def test_a_name_is_used_once(self, world: World, write_model: WriteModel) -> None:
        path = write_model()
        add(world, path)
        body = {"name": "tiny", "source": f"folder:{path}"}
        assert world.admin.refused("POST", "/models", body) == (409, "name_taken")

    def test_a_failed_one_may_be_added_again(self, world: World, write_model: WriteModel) -> None:
        path = write_model()
        (path / "tokenizer.json").unlink()
        failed(world, path)
        (path / "tokenizer.json").write_text("{}")
        assert add(world, path)["state"] == "ready"

    def test_each_project_has_its_own(self, world: World, write_model: WriteModel) -> None:
        world.admin.ok("POST", "/projects", {"name": "second"})
        body = {"name": "tiny", "source": f"folder:{write_model()}", "project": "second"}
        world.admin.ok("POST", "/models", body)
        assert world.admin.refused("GET", "/models/tiny") == (404, "not_found")
        assert world.admin.ok("GET", "/models/tiny?project=second")["state"] == "importing"

    @ON_SQLITE_ALONE
    def test_an_unknown_project_is_refused(self, world: World, write_model: WriteModel) -> None:
        body = {"name": "tiny", "source": f"folder:{write_model()}", "project": "nowhere"}
        assert world.admin.refused("POST", "/models", body) == (404, "not_found")

    @ON_SQLITE_ALONE
    def test_lists_come_in_pages(self, world: World, write_model: WriteModel, settings: Settings) -> None:
        path = write_model()
        for name in ("a", "b", "c"):
            add(world, path, name=name)
        object.__setattr__(world.server, "settings", settings.model_copy(update={"max_page": 2}))
        first = world.admin.ok("GET", "/models")
        second = world.admin.ok("GET", f"/models?after={first['next']}")
        names = [model["name"] for page in (first, second) for model in page["items"]]
        assert (names, second["next"]) == (["a", "b", "c"], None)


@ON_SQLITE_ALONE
class TestSources:
    @pytest.mark.parametrize(
        "source", ["tiny", "/models/tiny", "s3:bucket/x", "hub:tiny", "hub:a/b/c", "hub:a/b@", "hub:../b"]
    )
    def test_a_source_that_is_none(self, source: str, world: World) -> None:
        body = {"name": "tiny", "source": source}
        assert world.admin.refused("POST", "/models", body) == (422, "source_refused")

    def test_a_folder_outside(self, world: World, write_model: WriteModel, tmp_path: Path) -> None:
        path = write_model(folder=tmp_path)
        for text in (path, f"{tmp_path}/sources/../tiny"):
            answer = world.admin("POST", "/models", {"name": "tiny", "source": f"folder:{text}"})
            assert (answer.status_code, answer.json()["code"]) == (422, "source_refused")
            assert "TRUNKLINE_MODEL_SOURCES" in answer.json()["remedy"]

    def test_a_link_that_leads_outside(
        self, world: World, write_model: WriteModel, tmp_path: Path, sources: Path
    ) -> None:
        (sources / "link").symlink_to(write_model(folder=tmp_path))
        body = {"name": "tiny", "source": f"folder:{sources / 'link'}"}
        assert world.admin.refused("POST", "/models", body) == (422, "source_refused")

    def test_a_file_that_leads_outside(self, world: World, write_model: WriteModel, tmp_path: Path) -> None:
        path = write_model()
        (tmp_path / "secret").write_text('{"password": 1}')
        (path / "generation_config.json").symlink_to(tmp_path / "secret")
        assert "'generation_config.json' is a link to" in failed(world, path)

    def test_a_folder_that_became_a_link_meanwhile(
        self, world: World, write_model: WriteModel, tmp_path: Path
    ) -> None:
        path = write_model()
        world.admin.ok("POST", "/models", {"name": "tiny", "source": f"folder:{path}"})
        shutil.rmtree(path)
        path.symlink_to(write_model(folder=tmp_path))
        import_pending(world.server)
        assert "lies below no folder" in world.admin.ok("GET", "/models/tiny")["state_reason"]

    def test_links_inside_are_followed(self, world: World, write_model: WriteModel, sources: Path) -> None:
        path = write_model()
        (path / "model.safetensors").rename(sources / "blob")
        (path / "model.safetensors").symlink_to(sources / "blob")
        assert add(world, path)["state"] == "ready"


@ON_SQLITE_ALONE
class TestWhatCannotBeRegistered:
    def test_an_absent_folder(self, world: World, sources: Path) -> None:
        assert "is not a folder" in failed(world, sources / "absent")

    def test_a_corrupt_file(self, world: World, write_model: WriteModel) -> None:
        path = write_model()
        (path / "model.safetensors").write_bytes(b"x" * 40)
        assert "is corrupt" in failed(world, path)

    def test_a_pickle(self, world: World, write_model: WriteModel) -> None:
        path = write_model()
        (path / "model.safetensors").rename(path / "pytorch_model.bin")
        assert "is a pickle" in failed(world, path)

    def test_an_encoder_decoder(self, world: World, write_model: WriteModel) -> None:
        assert "'t5' is an encoder-decoder" in failed(world, write_model(model_type="t5"))

    def test_numbers_that_are_no_json(self, world: World, write_model: WriteModel) -> None:
        assert "NaN or Infinity" in failed(world, write_model(eps=float("nan")))

    def test_a_model_over_the_quota(self, world: World, write_model: WriteModel, settings: Settings) -> None:
        small = settings.model_copy(update={"artifact_quota_bytes": 100})
        object.__setattr__(world.server, "settings", small)
        assert "would pass the project's 100" in failed(world, write_model())

    def test_our_own_failure_ends_the_import(
        self, world: World, write_model: WriteModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("backend.models.service.register", None)
        assert "the server's log says why" in failed(world, write_model())


@ON_SQLITE_ALONE
class TestHub:
    @pytest.fixture
    def asked(self, write_model: WriteModel, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        """A hub that has one model; what it was asked for."""
        asked: dict[str, Any] = {}
        model = write_model()

        def snapshot_download(name: str, *, local_dir: Path, **options: Any) -> None:
            asked.update(options, name=name, local_dir=local_dir)
            if name != "owner/tiny":
                raise OSError("404 Client Error\nRepository Not Found")
            shutil.copytree(model, local_dir, dirs_exist_ok=True)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return asked

    def test_a_model_is_downloaded_and_the_download_removed(
        self, world: World, asked: dict[str, Any]
    ) -> None:
        assert add(world, "hub:owner/tiny@v1.0")["state"] == "ready"
        assert (asked["name"], asked["revision"]) == ("owner/tiny", "v1.0")
        assert not asked["local_dir"].exists()

    def test_no_pickle_and_no_code_is_asked_for(self, world: World, asked: dict[str, Any]) -> None:
        files = ["pytorch_model.bin", "modeling.py", "model.pt", "onnx/model.safetensors", "config.json"]
        add(world, "hub:owner/tiny")
        kept = huggingface_hub.utils._paths.filter_repo_objects(
            files, allow_patterns=asked["allow_patterns"], ignore_patterns=asked["ignore_patterns"]
        )
        assert list(kept) == ["config.json"]

    def test_what_the_hub_has_not(self, world: World, asked: dict[str, Any]) -> None:
        reason = failed(world, "hub:owner/absent")
        assert reason == (
            "owner/absent cannot be had from the hub: 404 Client Error; check id, revision and network"
        )
        assert asked["name"] == "owner/absent"


class TestRemove:
    def test_its_files_go_when_nothing_needs_them(self, world: World, write_model: WriteModel) -> None:
        path = write_model()
        digest = add(world, path)["digest"]
        add(world, path, name="same")
        server = world.server
        for name, left in (("tiny", 4), ("same", 0)):
            world.admin.ok("DELETE", f"/models/{name}")
            world.clock.advance(seconds=1)
            sweep(server.database, server.store, now=world.clock())
            assert len(server.store._files.find(f"{server.store._root}/sha256")) == left
        assert world.admin.refused("GET", f"/models/manifests/{digest}") == (404, "not_found")

    @pytest.mark.parametrize(
        ("state", "status"), [(JobState.RUNNING, 409), (JobState.PAUSED, 409), (JobState.COMPLETED, 204)]
    )
    def test_not_while_a_job_needs_it(
        self, state: JobState, status: int, world: World, write_model: WriteModel
    ) -> None:
        add(world, write_model())
        with world.server.database.write() as session:
            session.add(_job(session.query(Model).one(), state, world))
        assert world.admin("DELETE", "/models/tiny").status_code == status

    def test_while_it_is_imported(self, world: World, write_model: WriteModel) -> None:
        world.admin.ok("POST", "/models", {"name": "tiny", "source": f"folder:{write_model()}"})
        world.admin.ok("DELETE", "/models/tiny")
        import_pending(world.server)
        assert world.admin.ok("GET", "/models")["items"] == []


def _job(model: Model, state: JobState, world: World) -> Job:
    now = world.clock()
    return Job(
        project_id=model.project_id, name="job", model_id=model.id, spec_bytes=b"", spec_digest=bytes(32),
        spec_signature=b"", state=state, desired="run", reason_who="", reason_what="", reason_where="",
        reason_next="", submitted_by="admin", created_at=now, updated_at=now,
    )  # fmt: skip
