"""A random model of the Llama layout, on disk, with a tokenizer whose words are the numbers of its tokens."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
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
    _tokenizer(case.vocab_size).save_pretrained(folder)


def _tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({str(token): token for token in range(vocab_size)}))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words)
