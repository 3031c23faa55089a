import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from splitlearn.partition import CutError, ModelFilesError, load_silo_blocks, load_trunk
from splitlearn.partition.skeleton import build_skeleton
from splitlearn.planning import INDEX_FILE, ModelFolder
from splitlearn.spec import LoraAdapter

FolderOf = Callable[[str], ModelFolder]
ALL = [
    "llama",
    "llama-tied",
    "gemma3_text",
    "gpt2",
    "opt-projected",
    "gpt_neox",
    "bloom",
    "falcon",
    "qwen3_moe",
]


def write_copy(source: ModelFolder, target: Path, *, tensors: dict[str, torch.Tensor]) -> Path:
    target.mkdir()
    (target / "config.json").write_text(json.dumps(dict(source.config)))
    save_file(tensors, target / "model.safetensors")
    return target


def shard_by_layer(source: ModelFolder, target: Path) -> None:
    """Write each layer to a file of its own, embedding to one and what follows the layers to another."""
    family, shards = source.family, dict[str, dict[str, torch.Tensor]]()
    for name, tensor in load_file(source.path / "model.safetensors").items():
        parameter = source.parameter_of(name)
        layer = family.layer_of(parameter)
        place = (
            f"layer-{layer}" if layer is not None else "in" if family.is_before_layers(parameter) else "out"
        )
        shards.setdefault(f"{place}.safetensors", {})[name] = tensor
    target.mkdir()
    for file, tensors in shards.items():
        save_file(tensors, target / file)
    index = {"weight_map": {name: file for file, tensors in shards.items() for name in tensors}}
    (target / INDEX_FILE).write_text(json.dumps(index))
    (target / "config.json").write_text(json.dumps(dict(source.config)))


class TestBytesRead:
    @pytest.mark.parametrize("variant", ALL)
    def test_of_silo_and_trunk_add_up_to_the_whole(self, variant: str, folder_of: FolderOf) -> None:
        folder = folder_of(variant)
        cut = folder.cut(bottom_layers=1, top_layers=2)
        silo, trunk = load_silo_blocks(folder, cut), load_trunk(folder, cut)
        read = [*silo.bottom.origin.tensors_read, *trunk.origin.tensors_read, *silo.top.origin.tensors_read]
        assert sorted(read) == sorted(folder.files)
        assert silo.bytes_read + trunk.bytes_read == sum(info.num_bytes for info in folder.tensors())

    @pytest.mark.parametrize("variant", ["llama", "llama-tied", "gpt2", "qwen3_moe"])
    def test_come_from_the_segments_own_files_alone(
        self, variant: str, folder_of: FolderOf, tmp_path: Path
    ) -> None:
        for party in ("silo", "trunk"):
            shard_by_layer(folder_of(variant), tmp_path / party)
        for number in (1, 2):
            (tmp_path / "silo" / f"layer-{number}.safetensors").unlink()
        for file in ("in", "out", "layer-0", "layer-3", "layer-4"):
            (tmp_path / "trunk" / f"{file}.safetensors").unlink()
        at_silo, at_trunk = ModelFolder.open(tmp_path / "silo"), ModelFolder.open(tmp_path / "trunk")
        cut = at_silo.cut(bottom_layers=1, top_layers=2)
        silo, trunk = load_silo_blocks(at_silo, cut), load_trunk(at_trunk, cut)
        whole = sum(info.num_bytes for info in folder_of(variant).tensors())
        assert silo.bytes_read + trunk.bytes_read == whole


class TestSkeleton:
    def test_of_a_large_model_has_no_memory(self, folder_of: FolderOf, tmp_path: Path) -> None:
        large = {
            **folder_of("llama").config,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "vocab_size": 128_000,
        }
        (tmp_path / "config.json").write_text(json.dumps(large))
        (tmp_path / INDEX_FILE).write_text('{"weight_map": {"lm_head.weight": "elsewhere.safetensors"}}')
        model = build_skeleton(ModelFolder.open(tmp_path), dtype=torch.float32)
        assert all(parameter.is_meta for parameter in model.parameters())
        assert sum(parameter.numel() for parameter in model.parameters()) > 1e9

    @pytest.mark.parametrize("variant", ["llama", "gemma3_text", "phi3", "falcon"])
    def test_leaves_nothing_unfilled(self, variant: str, folder_of: FolderOf) -> None:
        folder = folder_of(variant)
        cut = folder.cut(bottom_layers=1, top_layers=1)
        silo = load_silo_blocks(folder, cut)
        for segment in (silo.bottom, load_trunk(folder, cut), silo.top):
            held = [*segment.named_parameters(), *segment.named_buffers()]
            assert [name for name, tensor in held if tensor.is_meta] == []
            assert not segment.training

    def test_leaves_the_callers_random_state(self, folder_of: FolderOf) -> None:
        torch.manual_seed(3)
        before = torch.get_rng_state()
        folder = folder_of("gemma2")
        load_trunk(folder, folder.cut(bottom_layers=1, top_layers=1))
        assert torch.equal(torch.get_rng_state(), before)


class TestThreads:
    def test_may_load_at_once(self, folder_of: FolderOf) -> None:
        folder = folder_of("gemma3_text")
        cut = folder.cut(bottom_layers=1, top_layers=1)
        types = (torch.float32, torch.bfloat16) * 3
        with ThreadPoolExecutor(len(types)) as threads:
            trunks = list(
                threads.map(lambda dtype: load_trunk(folder, cut, adapter=LoraAdapter(), dtype=dtype), types)
            )
        for trunk, dtype in zip(trunks, types, strict=True):
            alone = load_trunk(folder, cut, adapter=LoraAdapter(), dtype=dtype)
            held, expected = trunk.state_dict(), alone.state_dict()
            assert held.keys() == expected.keys()
            assert all(torch.equal(held[name], expected[name]) for name in held)
            assert {tensor.dtype for name, tensor in held.items() if "lora" not in name} == {dtype}


class TestTypes:
    def test_load_half_precision_files_as_float32(self, folder_of: FolderOf, tmp_path: Path) -> None:
        source = folder_of("llama")
        halved = {n: t.bfloat16() for n, t in load_file(source.path / "model.safetensors").items()}
        folder = ModelFolder.open(write_copy(source, tmp_path / "half", tensors=halved))
        trunk = load_trunk(folder, folder.cut(bottom_layers=1, top_layers=1))
        name, parameter = trunk.trainable[0]
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, halved[name].float())

    def test_load_float32_files_as_half_precision(self, folder_of: FolderOf) -> None:
        folder = folder_of("llama")
        trunk = load_trunk(folder, folder.cut(bottom_layers=1, top_layers=1), dtype=torch.bfloat16)
        assert {parameter.dtype for _, parameter in trunk.trainable} == {torch.bfloat16}


class TestTiedEmbeddings:
    def test_are_one_parameter_listed_in_the_bottom(self, folder_of: FolderOf) -> None:
        folder = folder_of("llama-tied")
        silo = load_silo_blocks(folder, folder.cut(bottom_layers=1, top_layers=1))
        assert silo.top.base.lm_head.weight is silo.bottom.base.model.embed_tokens.weight
        assert "model.embed_tokens.weight" in dict(silo.bottom.trainable)
        assert "lm_head.weight" not in dict(silo.top.trainable)

    def test_may_be_stored_twice_if_equal(self, folder_of: FolderOf, tmp_path: Path) -> None:
        source = folder_of("llama-tied")
        tensors = load_file(source.path / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        folder = ModelFolder.open(write_copy(source, tmp_path / "twice", tensors=tensors))
        silo = load_silo_blocks(folder, folder.cut(bottom_layers=1, top_layers=1))
        assert torch.equal(silo.top.base.lm_head.weight, tensors["lm_head.weight"])

    def test_refuse_two_different_tensors(self, folder_of: FolderOf, tmp_path: Path) -> None:
        source = folder_of("llama-tied")
        tensors = load_file(source.path / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
        folder = ModelFolder.open(write_copy(source, tmp_path / "twice", tensors=tensors))
        with pytest.raises(ModelFilesError, match="tie_word_embeddings"):
            load_silo_blocks(folder, folder.cut(bottom_layers=1, top_layers=1))

    def test_may_be_stored_as_the_head(self, folder_of: FolderOf, tmp_path: Path) -> None:
        source = folder_of("llama-tied")
        tensors = load_file(source.path / "model.safetensors")
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
        folder = ModelFolder.open(write_copy(source, tmp_path / "head", tensors=tensors))
        silo = load_silo_blocks(folder, folder.cut(bottom_layers=1, top_layers=1))
        assert torch.equal(silo.bottom.base.model.embed_tokens.weight, tensors["lm_head.weight"])


class TestNamesOnDisk:
    def test_may_lack_the_decoders_prefix(self, folder_of: FolderOf, tmp_path: Path) -> None:
        source = folder_of("gpt2")
        tensors = load_file(source.path / "model.safetensors")
        bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        folder = ModelFolder.open(write_copy(source, tmp_path / "bare", tensors=bare))
        trunk = load_trunk(folder, folder.cut(bottom_layers=1, top_layers=1))
        name, parameter = trunk.trainable[0]
        assert torch.equal(parameter, tensors[name])


class TestRefusals:
    def test_a_missing_tensor_is_named(self, folder_of: FolderOf, tmp_path: Path) -> None:
        source = folder_of("llama")
        tensors = load_file(source.path / "model.safetensors")
        del tensors["model.layers.2.mlp.up_proj.weight"]
        folder = ModelFolder.open(write_copy(source, tmp_path / "gap", tensors=tensors))
        with pytest.raises(ModelFilesError, match=r"lacks the tensor 'model.layers.2.mlp.up_proj.weight'"):
            load_trunk(folder, folder.cut(bottom_layers=1, top_layers=1))

    def test_a_tensor_of_another_shape_is_named(self, folder_of: FolderOf, tmp_path: Path) -> None:
        source = folder_of("llama")
        tensors = load_file(source.path / "model.safetensors")
        tensors["model.layers.2.mlp.up_proj.weight"] = torch.zeros(4, 4)
        folder = ModelFolder.open(write_copy(source, tmp_path / "shape", tensors=tensors))
        with pytest.raises(ModelFilesError, match=r"up_proj.weight' has shape \(4, 4\).*\(48, 32\)"):
            load_trunk(folder, folder.cut(bottom_layers=1, top_layers=1))

    def test_a_missing_shard_is_named(self, folder_of: FolderOf, tmp_path: Path) -> None:
        shard_by_layer(folder_of("llama"), tmp_path / "shards")
        (tmp_path / "shards" / "layer-1.safetensors").unlink()
        folder = ModelFolder.open(tmp_path / "shards")
        with pytest.raises(ModelFilesError, match=r"layer-1\.safetensors cannot be read"):
            load_trunk(folder, folder.cut(bottom_layers=1, top_layers=1))

    def test_a_cut_of_another_model_is_refused(self, folder_of: FolderOf) -> None:
        cut = folder_of("llama").cut(bottom_layers=1, top_layers=1)
        other = ModelFolder.open(folder_of("llama").path)
        object.__setattr__(other, "num_layers", 9)
        with pytest.raises(CutError, match=r"5 layers, but .* has 9"):
            load_trunk(other, cut)

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"num_attention_heads": "many"}, "many"),
            ({"num_attention_heads": 7}, "7"),
            ({"rope_scaling": {"rope_type": "bogus", "factor": 2.0}}, "does not know 'bogus'"),
        ],
    )
    def test_a_configuration_that_transformers_refuses_is_named_in_one_line(
        self, changes: dict[str, Any], says: str, folder_of: FolderOf, tmp_path: Path
    ) -> None:
        source = folder_of("llama")
        path = write_copy(source, tmp_path / "odd", tensors=load_file(source.path / "model.safetensors"))
        (path / "config.json").write_text(json.dumps({**source.config, **changes}))
        folder = ModelFolder.open(path)
        with pytest.raises(
            ModelFilesError, match=rf"config\.json is refused .*{says}.*; correct it"
        ) as caught:
            load_trunk(folder, folder.cut(bottom_layers=1, top_layers=1))
        assert "\n" not in caught.value.message
