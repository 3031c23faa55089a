"""A whole model without memory, and the cut through it.

The model is built on torch's meta device by the library's own class, so every layer gets what depends on
its original number; then what the segment does not hold is taken out.
"""

from threading import RLock
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from splitlearn.families import Family
from splitlearn.planning import Cut, ModelFilesError, ModelFolder, Role

BUILD_LOCK = RLock()
"""Building models changes process-wide state of torch (default type, generators): one thread at a time."""

_REFUSALS = (
    StrictDataclassError,
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the library raises for a configuration that makes no model: its values are used unchecked."""

_PER_LAYER_SETTINGS = ("layer_types",)


class NoPositions(nn.Module):
    """Stands where a family adds positions, in segments that receive hidden states which have them.

    Returns negative zero, the one number that leaves every float as it is when added (+0.0 would turn a
    -0.0 into +0.0).
    """

    def forward(self, *_args: Any, **_kwargs: Any) -> Tensor:
        """Return a scalar that changes nothing when added."""
        return torch.tensor(-0.0)


def build_skeleton(folder: ModelFolder, *, dtype: torch.dtype) -> Any:
    """Build the whole model on the meta device.

    Args:
        folder: The model.
        dtype: Type of its parameters.

    Returns:
        A ``transformers.PreTrainedModel`` for causal language modelling, in evaluation mode, without any
        tensor's memory.

    Raises:
        ModelFilesError: config.json is one that the library refuses.
    """
    try:
        config = AutoConfig.from_pretrained(folder.path, local_files_only=True, trust_remote_code=False)
        with BUILD_LOCK, torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    except _REFUSALS as error:
        raise ModelFilesError(
            f"{folder.path / 'config.json'} is refused by transformers ({_one_line(error)}); "
            "correct it, or download the model again"
        ) from error
    return model.eval()


def _one_line(error: Exception) -> str:
    sentence = " ".join(str(error).split())
    # A KeyError's text is the key alone.
    return f"it does not know {sentence}" if isinstance(error, KeyError) else sentence


def cut_skeleton(model: Any, *, family: Family, cut: Cut, role: Role) -> None:
    """Take out of a whole model, in place, what one segment does not hold.

    Layers keep their original numbers as keys, so names stay those of the whole model; their cache
    positions (``layer_idx``) count from 0.
    """
    decoder = model.get_submodule(family.decoder)
    layers = cut.layers(role)
    setattr(decoder, family.layers, _layers(getattr(decoder, family.layers), layers))
    if role is not Role.BOTTOM:
        for name in (family.embedding, *family.before):
            _replace(decoder, name, nn.Identity())
        if family.positions is not None:
            _replace(decoder, family.positions, NoPositions())
    if role is not Role.TOP:
        for name in family.after:
            _replace(decoder, name, nn.Identity())
        _replace(model, family.head, nn.Identity())
    _slice_config(model, layers)


def _replace(parent: nn.Module, name: str, replacement: nn.Module) -> None:
    # None stands for a module that this configuration of the family does not have.
    if getattr(parent, name) is not None:
        setattr(parent, name, replacement)


def _layers(whole: nn.ModuleList, numbers: range) -> nn.ModuleList:
    kept = nn.ModuleList()
    for position, number in enumerate(numbers):
        layer = whole[number]
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, "layer_idx", position)  # noqa: B010 - not declared by nn.Module
        kept.add_module(str(number), layer)
    return kept


def _slice_config(model: Any, layers: range) -> None:
    config = model.config
    per_layer = {name: getattr(config, name, None) for name in _PER_LAYER_SETTINGS}
    config.num_hidden_layers = len(layers)
    for name, values in per_layer.items():
        if values is not None:
            setattr(config, name, [values[number] for number in layers])
