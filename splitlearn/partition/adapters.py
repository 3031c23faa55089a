"""What is trained: every weight, or LoRA by the PEFT library, with the same initial weights split or not."""

import hashlib
import math
import warnings
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from splitlearn.errors import ModelError
from splitlearn.families import FAMILIES, Family
from splitlearn.partition.segments import Segment
from splitlearn.partition.skeleton import BUILD_LOCK
from splitlearn.spec import FullAdapter, LoraAdapter

Adapter = FullAdapter | LoraAdapter
_INIT_CONTEXT = b"trunkline/lora-init/v1\0"


class AdapterError(ModelError):
    """The adapter does not fit the model."""

    code = "model_adapter"


def linear_modules(model: nn.Module) -> tuple[str, ...]:
    """Return the names of all modules that LoRA can adapt."""
    return tuple(name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D))


def resolve_targets(adapter: LoraAdapter, *, family: Family, linear: tuple[str, ...]) -> tuple[str, ...]:
    """Return the module names that LoRA adapts: the job's, or the family's default.

    Args:
        adapter: The job's adapter.
        family: The model's family.
        linear: Names of all linear modules of the whole model.

    Raises:
        AdapterError: A target matches no linear module, or the head.
    """
    targets = adapter.targets or family.lora_targets
    for target in targets:
        matched = [name for name in linear if _matches(name, target)]
        if not matched:
            known = sorted({name.rpartition(".")[2] for name in linear} - {family.head})
            raise AdapterError(
                f"the LoRA target {target!r} matches no linear module of the {family.model_type} model; "
                f"choose among {', '.join(known)}"
            )
        if family.head in matched:
            raise AdapterError(
                f"the LoRA target {target!r} is the language-model head, which is not adapted; leave it out"
            )
    return tuple(targets)


def targeted(linear: tuple[str, ...], targets: tuple[str, ...]) -> tuple[str, ...]:
    """Return those linear modules that any of the targets names, in the model's order."""
    return tuple(name for name in linear if any(_matches(name, target) for target in targets))


def _matches(module: str, target: str) -> bool:
    return module == target or module.endswith("." + target)  # PEFT's own rule for lists of names


def apply_adapter(model: Any, adapter: Adapter, *, seed: int) -> Any:
    """Make trainable what the adapter says: on a segment and on the whole model alike.

    Args:
        model: A :class:`Segment`, changed in place, or a whole ``transformers.PreTrainedModel``.
        adapter: ``full``: every parameter. ``lora``: PEFT's LoRA layers; all else is frozen.
        seed: Of LoRA's initial weights, which depend on it and on each tensor's name alone.

    Returns:
        The segment, or the whole model (wrapped by PEFT for LoRA).

    Raises:
        AdapterError: A LoRA target matches nothing in the whole model.
    """
    core = model.core if isinstance(model, Segment) else model
    if isinstance(adapter, FullAdapter):
        core.requires_grad_(requires_grad=True)
        return model
    family = FAMILIES[core.config.model_type]
    linear = model.origin.linear_modules if isinstance(model, Segment) else linear_modules(core)
    wrapped = _wrap(core, adapter, resolve_targets(adapter, family=family, linear=linear))
    _initialise(wrapped, seed=seed)
    if adapter.freeze_a:
        _freeze_a(wrapped)
    if not isinstance(model, Segment):
        return wrapped
    model.core = wrapped
    return model


def lora_config(adapter: LoraAdapter, *, targets: list[str], module: nn.Module, **fields: Any) -> Any:
    """Return PEFT's configuration (``LoraConfig``) of an adapter.

    Args:
        adapter: The job's adapter.
        targets: Module names.
        module: One of the modules that they name.
        fields: Further fields of PEFT's configuration.
    """
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        fan_in_fan_out=isinstance(module, Conv1D),  # GPT-2 stores its linear layers transposed,
        **fields,
    )


def _wrap(core: Any, adapter: LoraAdapter, targets: tuple[str, ...]) -> Any:
    matched = targeted(linear_modules(core), targets)
    core.requires_grad_(requires_grad=False)
    if not matched:  # a segment without layers: nothing of it is adapted
        return core
    config = lora_config(adapter, targets=list(targets), module=core.get_submodule(matched[0]))
    # PEFT draws initial weights that are replaced below; the caller's random state must not notice.
    with BUILD_LOCK, torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # PEFT asks transformers for a property by its former name; nothing of ours does.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        return get_peft_model(core, config).train(core.training)


def _initialise(wrapped: Any, *, seed: int) -> None:
    for name, parameter in wrapped.named_parameters():
        if ".lora_A." in name:
            start = torch.empty(parameter.shape, dtype=torch.float32)
            nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=_generator(seed, name))
            parameter.data.copy_(start)
        elif ".lora_B." in name:
            parameter.data.zero_()


def _freeze_a(wrapped: Any) -> None:
    for name, parameter in wrapped.named_parameters():
        if ".lora_A." in name:
            parameter.requires_grad_(requires_grad=False)


def _generator(seed: int, name: str) -> torch.Generator:
    key = hashlib.sha256(_INIT_CONTEXT + f"{seed}\0{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)
