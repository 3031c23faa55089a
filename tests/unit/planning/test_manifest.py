import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from splitlearn.families import UnknownFamilyError
from splitlearn.planning import (
    BlobFile,
    ModelFilesError,
    ModelFolder,
    ModelManifest,
    Role,
    TensorEntry,
    TensorFile,
    group_by_file,
    segment_sizes,
    tensors_by_role,
)
from splitlearn.planning.manifest import AFTER, BEFORE, OTHER, layer_file

WriteModel = Callable[..., Path]
MATRIX = ("F32", (8, 8))

GPT2 = {"model_type": "gpt2", "n_layer": 3, "n_embd": 8}
GPT2_TENSORS = {
    "wte.weight": MATRIX,  # as saved from the bare decoder
    "wpe.weight": MATRIX,
    **{f"h.{number}.attn.c_attn.weight": MATRIX for number in range(3)},
    "ln_f.weight": ("F32", (8,)),
}
OPT = {"model_type": "opt", "num_hidden_layers": 3, "hidden_size": 8}
OPT_TENSORS = {
    f"model.decoder.{name}.weight": MATRIX
    for name in (
        "embed_tokens",
        "embed_positions",
        "project_in",
        *(f"layers.{number}.fc1" for number in range(3)),
        "final_layer_norm",
        "project_out",
    )
}
BLOOM = {"model_type": "bloom", "n_layer": 3, "hidden_size": 8}
BLOOM_TENSORS = {
    f"transformer.{name}.weight": MATRIX
    for name in (
        "word_embeddings",
        "word_embeddings_layernorm",
        *(f"h.{number}.mlp.dense_h_to_4h" for number in range(3)),
        "ln_f",
    )
}
MOE = {"model_type": "qwen3_moe", "num_hidden_layers": 3, "hidden_size": 8}
MOE_TENSORS = {
    "model.embed_tokens.weight": MATRIX,
    **{
        f"model.layers.{layer}.mlp.experts.{expert}.{part}.weight": MATRIX
        for layer in range(3)
        for expert in range(2)
        for part in ("gate_proj", "up_proj", "down_proj")
    },
    "model.norm.weight": ("F32", (8,)),
    "lm_head.weight": MATRIX,
}
FAMILIES = {
    "gpt2": (GPT2, GPT2_TENSORS),
    "opt": (OPT, OPT_TENSORS),
    "bloom": (BLOOM, BLOOM_TENSORS),
    "qwen3_moe": (MOE, MOE_TENSORS),
}


def manifest_of(folder: ModelFolder) -> ModelManifest:
    """A manifest as the control plane makes it; digests stand for contents that nobody reads here."""
    files = tuple(
        TensorFile(
            name=name,
            digest=sha256(name.encode()).hexdigest(),
            num_bytes=sum(info.num_bytes for info in tensors) + 100,
            tensors={
                info.name: TensorEntry(dtype=info.dtype, shape=info.shape, num_bytes=info.num_bytes)
                for info in tensors
            },
        )
        for name, tensors in group_by_file(folder).items()
    )
    tensors = folder.tensors()
    return ModelManifest(
        source="folder",
        family=folder.family.model_type,
        num_layers=folder.num_layers,
        hidden_size=folder.hidden_size,
        num_parameters=sum(info.num_elements for info in tensors),
        num_bytes=sum(info.num_bytes for info in tensors),
        config=dict(folder.config),
        companions=(BlobFile(name="tokenizer.json", digest="0" * 64, num_bytes=3),),
        files=files,
    )


def names(files: tuple[TensorFile, ...]) -> set[str]:
    return {file.name for file in files}


@pytest.fixture
def manifest_for(write_model: WriteModel, llama: Callable[..., Any]) -> Callable[..., ModelManifest]:
    def make(family: str = "llama", *, tied: bool = False, **config: Any) -> ModelManifest:
        if family == "llama":
            path = write_model(llama(tied=tied), tie_word_embeddings=tied, **config)
        else:
            stated, tensors = FAMILIES[family]
            path = write_model(tensors, **stated, **config)
        return manifest_of(ModelFolder.open(path))

    return make


class TestFilesFor:
    def test_a_silo_gets_its_own_layers_and_what_lies_at_the_ends(
        self, manifest_for: Callable[..., ModelManifest]
    ) -> None:
        manifest = manifest_for()
        cut = manifest.folder().cut(bottom_layers=1, top_layers=1)
        assert names(manifest.files_for([Role.BOTTOM], cut)) == {BEFORE, layer_file(0)}
        assert names(manifest.files_for([Role.TOP], cut)) == {layer_file(3), AFTER}

    def test_a_worker_gets_the_trunk_alone(self, manifest_for: Callable[..., ModelManifest]) -> None:
        manifest = manifest_for(tied=True)
        cut = manifest.folder().cut(bottom_layers=1, top_layers=1)
        assert names(manifest.files_for([Role.TRUNK], cut)) == {layer_file(1), layer_file(2)}

    def test_the_top_of_a_tied_model_needs_the_embedding(
        self, manifest_for: Callable[..., ModelManifest]
    ) -> None:
        manifest = manifest_for(tied=True)
        cut = manifest.folder().cut(bottom_layers=0, top_layers=0)
        assert names(manifest.files_for([Role.TOP], cut)) == {BEFORE, AFTER}

    @pytest.mark.parametrize("family", FAMILIES)
    def test_every_segment_finds_its_tensors(
        self, family: str, manifest_for: Callable[..., ModelManifest]
    ) -> None:
        manifest = manifest_for(family)
        folder = manifest.folder()
        cut = folder.cut(bottom_layers=1, top_layers=1)
        for role, needed in tensors_by_role(folder, cut).items():
            held = {name for file in manifest.files_for([role], cut) for name in file.tensors}
            assert {info.name for info in needed} <= held, role

    @pytest.mark.parametrize("family", ["llama", *FAMILIES])
    def test_the_three_segments_have_it_all(
        self, family: str, manifest_for: Callable[..., ModelManifest]
    ) -> None:
        manifest = manifest_for(family)
        cut = manifest.folder().cut(bottom_layers=1, top_layers=1)
        assert manifest.files_for(Role, cut) == manifest.files

    def test_experts_stay_with_their_layer(self, manifest_for: Callable[..., ModelManifest]) -> None:
        file = next(file for file in manifest_for("qwen3_moe").files if file.name == layer_file(1))
        assert len(file.tensors) == 6
        assert all(name.startswith("model.layers.1.mlp.experts.") for name in file.tensors)

    def test_positions_and_the_embeddings_norm_lie_before_the_layers(
        self, manifest_for: Callable[..., ModelManifest]
    ) -> None:
        (before,) = (file for file in manifest_for("bloom").files if file.name == BEFORE)
        assert "transformer.word_embeddings_layernorm.weight" in before.tensors
        (before,) = (file for file in manifest_for("gpt2").files if file.name == BEFORE)
        assert "wpe.weight" in before.tensors

    def test_a_tensor_that_no_segment_uses_is_nobodys(self, write_model: WriteModel) -> None:
        unused = {**GPT2_TENSORS, "score.weight": MATRIX}
        manifest = manifest_of(ModelFolder.open(write_model(unused, **GPT2)))
        cut = manifest.folder().cut(bottom_layers=1, top_layers=1)
        assert names(manifest.files) - names(manifest.files_for(Role, cut)) == {OTHER}


class TestIndex:
    def test_tells_the_file_of_every_tensor(self, manifest_for: Callable[..., ModelManifest]) -> None:
        weight_map = manifest_for().index()["weight_map"]
        assert len(weight_map) == 19
        assert weight_map["model.layers.2.mlp.up_proj.weight"] == layer_file(2)
        assert weight_map["lm_head.weight"] == AFTER

    def test_the_planned_folder_is_the_real_one(self, write_model: WriteModel) -> None:
        real = ModelFolder.open(write_model())
        planned = manifest_of(real).folder()
        cut = real.cut(bottom_layers=1, top_layers=2)
        assert segment_sizes(planned, cut) == segment_sizes(real, cut)


class TestDigest:
    def test_survives_its_bytes(self, manifest_for: Callable[..., ModelManifest]) -> None:
        manifest = manifest_for(rms_norm_eps=1e-05, rope_theta=10000.0, note="größer")
        again = ModelManifest.parse(manifest.canonical_bytes(), digest=manifest.digest())
        assert again == manifest
        assert again.digest() == manifest.digest()

    def test_another_config_is_another_model(self, manifest_for: Callable[..., ModelManifest]) -> None:
        assert manifest_for(rms_norm_eps=1e-05).digest() != manifest_for(rms_norm_eps=1e-06).digest()

    def test_an_exchanged_manifest_is_refused(self, manifest_for: Callable[..., ModelManifest]) -> None:
        wanted, other = manifest_for(note="a"), manifest_for(note="b")
        with pytest.raises(ModelFilesError, match="was exchanged"):
            ModelManifest.parse(other.canonical_bytes(), digest=wanted.digest())


class TestParse:
    @pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff"])
    def test_what_is_no_manifest_is_refused(self, data: bytes) -> None:
        with pytest.raises(ModelFilesError, match="malformed"):
            ModelManifest.parse(data)

    @pytest.mark.parametrize("name", ["../x.safetensors", "a/b", ".hidden", ""])
    def test_a_file_that_leads_elsewhere_is_refused(
        self, name: str, manifest_for: Callable[..., ModelManifest]
    ) -> None:
        fields = manifest_for().model_dump(mode="json")
        fields["files"][0]["name"] = name
        with pytest.raises(ModelFilesError, match="malformed"):
            ModelManifest.parse(json.dumps(fields).encode())

    def test_an_unknown_family_is_refused(self, manifest_for: Callable[..., ModelManifest]) -> None:
        manifest = manifest_for()
        changed = manifest.model_copy(update={"config": {**manifest.config, "model_type": "mamba"}})
        with pytest.raises(UnknownFamilyError, match="'mamba'"):
            ModelManifest.parse(changed.canonical_bytes())
