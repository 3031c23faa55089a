"""A random model of the Llama layout, on disk."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging

from bench.cases import Case


def write_model(case: Case, folder: Path) -> None:
    """Write a Hugging Face folder of random fp32 weights with an untied head."""
    config = LlamaConfig(
        vocab_size=case.vocab_size,
        hidden_size=case.dim,
        intermediate_size=case.mlp_dim,
        num_hidden_layers=case.layers,
        num_attention_heads=case.num_heads,
        max_position_embeddings=case.max_tokens,
        tie_word_embeddings=False,
        dtype="float32",
    )
    transformers_logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
