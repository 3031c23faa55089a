import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from backend.artifacts.errors import BlobTooLargeError
from backend.artifacts.store import ArtifactStore
from backend.models.splitting import register
from splitlearn.errors import ModelError
from splitlearn.planning import INDEX_FILE, ModelFilesError, ModelFolder, ModelManifest

LAYERS = 3
CONFIG = {"model_type": "llama", "num_hidden_layers": LAYERS, "hidden_size": 4}

Tensors = dict[str, torch.Tensor]
WriteSource = Callable[..., Path]


def tensors_of(dtype: torch.dtype = torch.float32) -> Tensors:
    """A model in names and bytes only; odd sizes, so that careless offsets show."""
    torch.manual_seed(3)
    shapes = {"model.embed_tokens.weight": (5, 3), "model.norm.weight": (3,), "lm_head.weight": (5, 3)}
    for number in range(LAYERS):
        shapes[f"model.layers.{number}.self_attn.q_proj.weight"] = (3, 3)
        shapes[f"model.layers.{number}.input_layernorm.weight"] = (3,)
    return {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


@pytest.fixture
def write_source(tmp_path: Path) -> WriteSource:
    def write(tensors: Tensors, *, shards: int = 1, name: str = "source") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG))
        (folder / "tokenizer.json").write_text('{"version": "1.0"}')
        if shards == 1:
            save_file(tensors, folder / "model.safetensors")
            return folder
        weight_map = {tensor: f"part-{place % shards}.safetensors" for place, tensor in enumerate(tensors)}
        for file in sorted(set(weight_map.values())):
            save_file({n: t for n, t in tensors.items() if weight_map[n] == file}, folder / file)
        (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
        return folder

    return write


def registered(folder: Path, store: ArtifactStore, **limits: Any) -> ModelManifest:
    limits = {"max_bytes": 1 << 20, **limits}
    return register(ModelFolder.open(folder), store, source="source", **limits)


def materialised(manifest: ModelManifest, store: ArtifactStore, folder: Path) -> Mapping[str, Tensors]:
    """Fetch every tensor file; return the tensors of each."""
    folder.mkdir()
    for file in manifest.files:
        (folder / file.name).write_bytes(b"".join(store.read(bytes.fromhex(file.digest))))
    return {file.name: load_file(folder / file.name) for file in manifest.files}


def same(left: Tensors, right: Tensors) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


class TestTensors:
    @pytest.mark.parametrize("shards", [1, 2])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_all_files_together_are_the_source_bit_for_bit(
        self, shards: int, dtype: torch.dtype, write_source: WriteSource, store: ArtifactStore, tmp_path: Path
    ) -> None:
        tensors = tensors_of(dtype)
        manifest = registered(write_source(tensors, shards=shards), store)
        files = materialised(manifest, store, tmp_path / "party")
        assert same({name: tensor for held in files.values() for name, tensor in held.items()}, tensors)

    def test_types_of_several_widths_share_a_file(
        self, write_source: WriteSource, store: ArtifactStore, tmp_path: Path
    ) -> None:
        tensors = tensors_of(torch.bfloat16)
        tensors["model.layers.1.self_attn.q_proj.weight"] = torch.randn(3, 3, dtype=torch.float64)
        tensors["model.layers.1.mask"] = torch.tensor([True, False, True])
        manifest = registered(write_source(tensors), store)
        layer = materialised(manifest, store, tmp_path / "party")["layer-00001.safetensors"]
        assert same(layer, {name: tensor for name, tensor in tensors.items() if ".layers.1." in name})

    def test_each_layer_has_a_file_of_its_own(self, write_source: WriteSource, store: ArtifactStore) -> None:
        manifest = registered(write_source(tensors_of()), store)
        assert [file.name for file in manifest.files] == [
            "after.safetensors",
            "before.safetensors",
            *(f"layer-0000{number}.safetensors" for number in range(LAYERS)),
        ]

    def test_the_manifest_says_what_the_files_are(
        self, write_source: WriteSource, store: ArtifactStore
    ) -> None:
        manifest = registered(write_source(tensors_of()), store)
        assert [store.size(bytes.fromhex(file.digest)) for file in manifest.files] == [
            file.num_bytes for file in manifest.files
        ]
        assert (manifest.num_parameters, manifest.num_bytes) == (69, 276)


class TestDigests:
    def test_shards_do_not_matter(self, write_source: WriteSource, store: ArtifactStore) -> None:
        one = registered(write_source(tensors_of(), name="one"), store)
        two = registered(write_source(tensors_of(), shards=2, name="two"), store)
        assert one.digest() == two.digest()

    def test_one_changed_layer_changes_one_file(
        self, write_source: WriteSource, store: ArtifactStore
    ) -> None:
        tensors = tensors_of()
        before = registered(write_source(tensors, name="one"), store)
        tensors["model.layers.2.input_layernorm.weight"][0] += 1
        after = registered(write_source(tensors, name="two"), store)
        changed = {file.name for file in after.files} - {
            new.name for old, new in zip(before.files, after.files, strict=True) if old == new
        }
        assert changed == {"layer-00002.safetensors"}


class TestRefusals:
    def test_a_source_that_was_cut_short(self, write_source: WriteSource, store: ArtifactStore) -> None:
        folder = write_source(tensors_of())
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-5])
        with pytest.raises(ModelFilesError, match=r"is corrupt.*download the model again"):
            registered(folder, store)

    def test_a_source_that_shrinks_while_it_is_read(
        self, write_source: WriteSource, store: ArtifactStore
    ) -> None:
        path = write_source(tensors_of())
        folder = ModelFolder.open(path)
        folder.tensors()
        file = path / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-5])
        with pytest.raises(ModelError, match="ends within the tensor"):
            register(folder, store, source="source", max_bytes=1 << 20)

    def test_a_model_without_tokenizer(self, write_source: WriteSource, store: ArtifactStore) -> None:
        folder = write_source(tensors_of())
        (folder / "tokenizer.json").unlink()
        with pytest.raises(ModelError, match=r"no tokenizer\.json.*save_pretrained"):
            registered(folder, store)

    def test_a_layer_over_the_limit(self, write_source: WriteSource, store: ArtifactStore) -> None:
        with pytest.raises(BlobTooLargeError, match="larger than 64 bytes"):
            registered(write_source(tensors_of()), store, max_bytes=64)
