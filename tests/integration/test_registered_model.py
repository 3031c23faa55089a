"""A party that has only its own files of a registered model computes what the whole model computes."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from backend.artifacts.store import ArtifactStore
from backend.models.splitting import register
from splitlearn.partition import BatchLayout, load_silo_blocks, load_trunk
from splitlearn.planning import INDEX_FILE, ModelFilesError, ModelFolder, ModelManifest, Role

LAYOUT = BatchLayout((7, 12, 3))
LIKE_LLAMA = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 67,
}  # fmt: skip
BASIC = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "vocab_size": 67}
EXPERTS = {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", LIKE_LLAMA),
    "llama-tied": ("llama", {**LIKE_LLAMA, "tie_word_embeddings": True}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 4, "n_head": 4, "vocab_size": 67}),
    "opt-projected": ("opt", {**BASIC, "ffn_dim": 48, "word_embed_proj_dim": 16}),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 4, "n_head": 4, "vocab_size": 67}),
    "gpt_neox": ("gpt_neox", {**BASIC, "intermediate_size": 48}),
    "qwen3_moe": ("qwen3_moe", {**LIKE_LLAMA, **EXPERTS}),
}


class Registry:
    """A store, and the folders that parties make of it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._store = ArtifactStore(str(root / "store"))

    def register(self, source: Path) -> ModelManifest:
        return register(ModelFolder.open(source), self._store, source="source", max_bytes=1 << 30)

    def folder_for(self, manifest: ModelManifest, name: str, roles: Iterable[Role]) -> ModelFolder:
        """Write what a party with these roles fetches, and nothing else."""
        folder = self._root / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(manifest.config))
        (folder / INDEX_FILE).write_text(json.dumps(manifest.index()))
        cut = manifest.folder().cut(bottom_layers=1, top_layers=1)
        for file in manifest.files_for(roles, cut):
            (folder / file.name).write_bytes(b"".join(self._store.read(bytes.fromhex(file.digest))))
        return ModelFolder.open(folder)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


@pytest.fixture
def save_model(tmp_path: Path) -> Callable[..., Path]:
    def save(variant: str, *, dtype: torch.dtype = torch.float32, **how: Any) -> Path:
        path = tmp_path / "source"
        model_type, settings = MODELS[variant]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.1)
        model.to(dtype).save_pretrained(path, **how)
        (path / "tokenizer.json").write_text("{}")
        return path

    return save


def logits_of(silo: ModelFolder, worker: ModelFolder) -> Tensor:
    cut = silo.cut(bottom_layers=1, top_layers=1)
    blocks, trunk = load_silo_blocks(silo, cut), load_trunk(worker, cut)
    ids_BT = torch.arange(3 * 12).reshape(3, 12) % 60
    with torch.no_grad():
        hidden_BTD = LAYOUT.unpack(LAYOUT.pack(blocks.bottom(ids_BT, LAYOUT)))
        hidden_BTD = LAYOUT.unpack(LAYOUT.pack(trunk(hidden_BTD, LAYOUT)))
        logits_BTV: Tensor = blocks.top(hidden_BTD, LAYOUT)
    return logits_BTV


class TestOwnFilesAlone:
    @pytest.mark.parametrize("variant", MODELS)
    def test_give_the_logits_of_the_source(
        self, variant: str, registry: Registry, save_model: Callable[..., Path]
    ) -> None:
        source = save_model(variant)
        manifest = registry.register(source)
        silo = registry.folder_for(manifest, "silo", [Role.BOTTOM, Role.TOP])
        worker = registry.folder_for(manifest, "worker", [Role.TRUNK])
        whole = ModelFolder.open(source)
        assert torch.equal(logits_of(silo, worker), logits_of(whole, whole))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_of_shards_in_half_precision_too(
        self, dtype: torch.dtype, registry: Registry, save_model: Callable[..., Path]
    ) -> None:
        source = save_model("llama", dtype=dtype, max_shard_size="20KB")
        assert (source / INDEX_FILE).exists()
        manifest = registry.register(source)
        silo = registry.folder_for(manifest, "silo", [Role.BOTTOM, Role.TOP])
        worker = registry.folder_for(manifest, "worker", [Role.TRUNK])
        whole = ModelFolder.open(source)
        assert torch.equal(logits_of(silo, worker), logits_of(whole, whole))

    def test_of_a_worker_hold_no_silos_layer(
        self, registry: Registry, save_model: Callable[..., Path]
    ) -> None:
        manifest = registry.register(save_model("llama"))
        worker = registry.folder_for(manifest, "worker", [Role.TRUNK])
        with pytest.raises(ModelFilesError, match="cannot be read"):
            load_silo_blocks(worker, worker.cut(bottom_layers=1, top_layers=1))

    def test_registering_needs_the_source_no_more(
        self, registry: Registry, save_model: Callable[..., Path]
    ) -> None:
        source = save_model("llama-tied")
        whole = ModelFolder.open(source)
        wanted = logits_of(whole, whole)
        manifest = registry.register(source)
        shutil.rmtree(source)
        party = registry.folder_for(manifest, "party", Role)
        assert torch.equal(logits_of(party, party), wanted)
