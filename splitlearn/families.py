"""The few facts that differ per model family: everything else about a cut is generic.

A family is known only if a test composes its segments and finds the whole model's logits bit for bit: a
family that scales or shifts its embeddings inside ``forward`` would otherwise be cut wrongly without a
sign. Adding one is a line in :data:`FAMILIES` and a line in that test.

Module names are those of the Hugging Face ``...ForCausalLM`` class of the family.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from splitlearn.errors import ModelError


class UnknownFamilyError(ModelError):
    """The model's family is not one whose cut has been tested."""

    code = "model_family"


@dataclass(frozen=True, slots=True)
class Family:
    """Where one family keeps its parts.

    Attributes:
        model_type: The family's name in ``config.json``.
        decoder: Path of the decoder, from the causal language model.
        layers: Name of the layer list inside the decoder.
        embedding: Name of the token embedding inside the decoder.
        after: Modules inside the decoder between the last layer and the head.
        before: Modules inside the decoder between embedding and layer 0 that hidden states pass through.
        positions: Module inside the decoder whose output is added to the embeddings.
        head: Name of the language-model head.
        ties_embeddings: Whether head and embedding are one tensor when ``config.json`` does not say.
        lora_targets: Modules that LoRA adapts when a job names none.
        layers_key: Number of layers in ``config.json``; other spellings that old files use follow.
        width_key: Hidden size in ``config.json``, likewise.
        head_on_disk: Another name of the head's weight in files.
        experts_on_disk: Files hold one tensor per expert; the library holds one per layer.
    """

    model_type: str
    decoder: str = "model"
    layers: str = "layers"
    embedding: str = "embed_tokens"
    after: tuple[str, ...] = ("norm",)
    before: tuple[str, ...] = ()
    positions: str | None = None
    head: str = "lm_head"
    ties_embeddings: bool = False
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    layers_key: tuple[str, ...] = ("num_hidden_layers",)
    width_key: tuple[str, ...] = ("hidden_size",)
    head_on_disk: str | None = None
    experts_on_disk: bool = False

    @property
    def embedding_weight(self) -> str:
        """Parameter name of the token embedding."""
        return f"{self.decoder}.{self.embedding}.weight"

    @property
    def head_weight(self) -> str:
        """Parameter name of the head, also where it is tied."""
        return f"{self.head}.weight"

    def layer_of(self, parameter: str) -> int | None:
        """Return the number of the layer that a parameter belongs to, or None outside the layers."""
        prefix = f"{self.decoder}.{self.layers}."
        if not parameter.startswith(prefix):
            return None
        number = parameter[len(prefix) :].partition(".")[0]
        return int(number) if number.isdecimal() else None

    def is_before_layers(self, parameter: str) -> bool:
        """Whether a parameter is used before layer 0: embedding, positions, and what follows them."""
        names = (self.embedding, *self.before, *((self.positions,) if self.positions else ()))
        return parameter.startswith(tuple(f"{self.decoder}.{name}." for name in names))

    def is_after_layers(self, parameter: str) -> bool:
        """Whether a parameter is used after the last layer: final norm, projection, head."""
        names = tuple(f"{self.decoder}.{name}." for name in self.after)
        return parameter.startswith((*names, f"{self.head}."))

    def parameter_of(self, tensor: str) -> str:
        """Return the parameter that a tensor on disk is loaded into.

        Files saved from the bare decoder lack the first component of every name; per-expert tensors
        become one tensor per layer.
        """
        if self.head_on_disk is not None and tensor == f"{self.head_on_disk}.weight":
            return self.head_weight
        root = self.decoder.partition(".")[0] + "."
        name = tensor if tensor.startswith((root, f"{self.head}.")) else root + tensor
        expert = _EXPERT.fullmatch(name) if self.experts_on_disk else None
        if expert is None:
            return name
        fused = "down_proj" if expert["part"] == "down_proj" else "gate_up_proj"
        return f"{expert['experts']}.{fused}"


_EXPERT = re.compile(
    r"(?P<experts>.+\.mlp\.experts)\.(?P<number>\d+)\.(?P<part>gate_proj|up_proj|down_proj)\.weight"
)

_LLAMA_LIKE = ("llama", "qwen2", "qwen3", "mistral", "glm", "glm4")

FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (
        *(Family(name) for name in _LLAMA_LIKE),
        Family("gemma2", ties_embeddings=True),
        Family("gemma3_text", ties_embeddings=True),
        Family(
            "phi",
            after=("final_layernorm",),
            before=("embed_dropout",),
            lora_targets=("q_proj", "v_proj", "fc1", "fc2"),
        ),
        Family("phi3", lora_targets=("qkv_proj",)),
        Family("qwen3_moe", experts_on_disk=True),
        Family(
            "gpt2",
            decoder="transformer",
            layers="h",
            embedding="wte",
            after=("ln_f",),
            before=("drop",),
            positions="wpe",
            ties_embeddings=True,
            lora_targets=("c_attn",),
            layers_key=("n_layer", "num_hidden_layers"),
            width_key=("n_embd", "hidden_size"),
        ),
        Family(
            "opt",
            decoder="model.decoder",
            after=("final_layer_norm", "project_out"),
            before=("project_in",),
            positions="embed_positions",
            ties_embeddings=True,
        ),
        Family(
            "gpt_neox",
            decoder="gpt_neox",
            embedding="embed_in",
            after=("final_layer_norm",),
            before=("emb_dropout",),
            lora_targets=("query_key_value",),
            head_on_disk="embed_out",
        ),
        Family(
            "bloom",
            decoder="transformer",
            layers="h",
            embedding="word_embeddings",
            after=("ln_f",),
            before=("word_embeddings_layernorm",),
            ties_embeddings=True,
            lora_targets=("query_key_value",),
            layers_key=("n_layer", "num_hidden_layers"),
            width_key=("hidden_size", "n_embed"),
        ),
        Family(
            "falcon",
            decoder="transformer",
            layers="h",
            embedding="word_embeddings",
            after=("ln_f",),
            ties_embeddings=True,
            lora_targets=("query_key_value",),
            layers_key=("num_hidden_layers", "n_layer"),
        ),
    )
}
"""Every family that can be cut, by the ``model_type`` of its ``config.json``."""

ENCODER_DECODERS = frozenset(
    {
        "bart", "blenderbot", "fsmt", "led", "longt5", "m2m_100", "marian", "mbart",
        "mt5", "pegasus", "prophetnet", "switch_transformers", "t5", "t5gemma", "udop", "umt5", "whisper",
    }
)  # fmt: skip
ENCODERS = frozenset(
    {
        "albert", "bert", "camembert", "convbert", "deberta", "deberta-v2", "distilbert", "electra",
        "longformer", "modernbert", "mpnet", "roberta", "xlm-roberta",
    }
)  # fmt: skip


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the family of a model.

    Args:
        config: The content of its ``config.json``.

    Raises:
        UnknownFamilyError: The family is an encoder, an encoder-decoder, unknown, or not stated; the
            message names it, says what can be cut and what to do.
    """
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in FAMILIES and not config.get("is_encoder_decoder"):
        return FAMILIES[model_type]
    raise UnknownFamilyError(
        f"{_why_not(model_type, encoder_decoder=bool(config.get('is_encoder_decoder')))}; "
        f"use a decoder of one of the families {', '.join(sorted(FAMILIES))}"
    )


def _why_not(model_type: object, *, encoder_decoder: bool) -> str:
    if not isinstance(model_type, str) or not model_type:
        return "config.json does not state a model_type"
    if encoder_decoder or model_type in ENCODER_DECODERS:
        return f"the family {model_type!r} is an encoder-decoder, and only decoders can be cut into segments"
    if model_type in ENCODERS:
        return f"the family {model_type!r} is an encoder, and only decoders can be cut into segments"
    return (
        f"the family {model_type!r} is not known, and cutting it untested could give wrong results silently"
    )
