"""Small random models of every family, saved to disk once per session."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from splitlearn.planning import ModelFolder

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 67,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2 = {"n_embd": 32, "n_layer": 5, "n_head": 4, "vocab_size": 67, "bos_token_id": 1, "eos_token_id": 2}
FALCON = {
    "hidden_size": 32,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "vocab_size": 67,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OPT = {**FALCON, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
WINDOW = {"sliding_window": 4}
MIXED = {
    **WINDOW,
    "layer_types": [f"{kind}_attention" for kind in ("sliding", "full", "sliding", "full", "sliding")],
}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", LLAMA),
    "llama-tied": ("llama", {**LLAMA, "tie_word_embeddings": True}),
    "qwen2": ("qwen2", {**LLAMA, **MIXED, "use_sliding_window": True, "max_window_layers": 2}),
    "qwen3": ("qwen3", {**LLAMA, **MIXED, "head_dim": 8, "use_sliding_window": True}),
    "mistral": ("mistral", {**LLAMA, **WINDOW}),
    "gemma2": ("gemma2", {**LLAMA, **MIXED, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "gemma3_text": ("gemma3_text", {**LLAMA, **MIXED, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "phi": ("phi", {**LLAMA, "num_key_value_heads": 4, "embd_pdrop": 0.1}),
    "phi3": ("phi3", {**LLAMA, **WINDOW}),
    "glm": ("glm", {**LLAMA, "head_dim": 8}),
    "glm4": ("glm4", {**LLAMA, "head_dim": 8}),
    "gpt2": ("gpt2", GPT2),
    "gpt2-scaled": ("gpt2", {**GPT2, "scale_attn_by_inverse_layer_idx": True}),
    "opt": ("opt", OPT),
    "opt-projected": ("opt", {**OPT, "word_embed_proj_dim": 16}),
    "gpt_neox": ("gpt_neox", {**FALCON, "intermediate_size": 48, "hidden_dropout": 0.1}),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 5, "n_head": 4, "vocab_size": 67}),
    "falcon": ("falcon", FALCON),
    "falcon-alibi": (
        "falcon",
        {**FALCON, "alibi": True, "new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "qwen3_moe": (
        "qwen3_moe",
        {
            **LLAMA,
            "head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "mlp_only_layers": [1],
        },
    ),
}


@pytest.fixture(scope="session", autouse=True)
def _one_quiet_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a variant's random model; every tensor of it is random, norms and biases too."""
    saved: dict[str, Path] = {}

    def path_of(variant: str) -> Path:
        if variant not in saved:
            saved[variant] = tmp_path_factory.mktemp(variant)
            save_random_model(*VARIANTS[variant], saved[variant])
        return saved[variant]

    return path_of


@pytest.fixture(scope="session")
def folder_of(model_path: Callable[[str], Path]) -> Callable[[str], ModelFolder]:
    return lambda variant: ModelFolder.open(model_path(variant))


@pytest.fixture(scope="session")
def whole_model(model_path: Callable[[str], Path]) -> Callable[[str], Any]:
    """Load a variant's whole model by plain transformers, afresh each time."""
    return lambda variant: AutoModelForCausalLM.from_pretrained(model_path(variant))


@pytest.fixture(scope="session")
def frozen_model(model_path: Callable[[str], Path]) -> Callable[[str], Any]:
    """Return a variant's whole model, loaded once: only to be looked at."""
    return cache(lambda variant: AutoModelForCausalLM.from_pretrained(model_path(variant)))


def save_random_model(model_type: str, settings: dict[str, Any], path: Path, **how: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        model.save_pretrained(path, **how)
