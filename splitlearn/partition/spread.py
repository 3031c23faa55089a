"""A segment laid over several devices: what a layer is given is moved to where that layer lies.

A decoder of the library computes masks and rotary embeddings once, where the hidden states come in, and hands
them to every layer. So each layer beyond the first device moves all tensors that it is given: the hidden
states at every border between two ranges, what the layers share once per device and forward. Moving copies
bits, and the gradient is moved back along the same way: a segment computes the same wherever it lies, as far
as the devices compute the same.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from splitlearn.families import Family

Move = Callable[[Tensor, torch.device], Tensor]
"""Returns a tensor on another device."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the layers of a segment lie.

    Attributes:
        ranges: Original numbers of contiguous layers, and their device; in the order of the layers.
    """

    ranges: tuple[tuple[range, torch.device], ...]

    @classmethod
    def of(cls, ranges: Iterable[tuple[range, torch.device | str]]) -> Self:
        """Return a spread by names of devices."""
        return cls(tuple((layers, torch.device(device)) for layers, device in ranges))

    @classmethod
    def on(cls, device: torch.device | str) -> Self:
        """Return the spread of a segment that lies on one device, whatever its layers."""
        return cls(((range(0), torch.device(device)),))

    @property
    def entrance(self) -> torch.device:
        """Where hidden states come in, and everything lies that belongs to no layer."""
        return self.ranges[0][1]

    @property
    def devices(self) -> tuple[torch.device, ...]:
        """The devices in the order of the layers, each once."""
        return tuple(dict.fromkeys(device for _, device in self.ranges))

    def device_of(self, layer: int | None) -> torch.device:
        """Return where a layer lies; None stands for what belongs to no layer."""
        return next((device for layers, device in self.ranges if layer in layers), self.entrance)


@dataclass
class Moves:
    """Moves what layers are given; attached to a decoder, for as long as it lives.

    Attributes:
        spread: Where the layers lie.
        move: How a tensor is moved.
    """

    spread: Spread
    move: Move = field(default=lambda tensor, device: tensor.to(device))
    _shared: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def attach(self, model: Any, *, family: Family) -> None:
        """Attach to a cut model.

        Args:
            model: A skeleton after cutting; its layers keep their original numbers.
            family: Its family.
        """
        decoder = model.get_submodule(family.decoder)
        for number, layer in getattr(decoder, family.layers).named_children():
            device = self.spread.device_of(int(number))
            if device != self.spread.entrance:
                layer.register_forward_pre_hook(self._hook(device), with_kwargs=True)
        # What was moved is let go of with the forward, also where that failed.
        decoder.register_forward_hook(self._forget, always_call=True)

    def _hook(self, device: torch.device) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def before(
            _layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return self._moved(args, device), self._moved(kwargs, device)

        return before

    def _moved(self, value: Any, device: torch.device) -> Any:
        """Return a value with every tensor in it moved; what holds none is handed on as it is."""
        if isinstance(value, Tensor):
            return self._tensor(value, device)
        if type(value) in {tuple, list}:
            return type(value)(self._moved(item, device) for item in value)
        if type(value) is dict:
            return {key: self._moved(item, device) for key, item in value.items()}
        return value

    def _tensor(self, tensor: Tensor, device: torch.device) -> Tensor:
        if tensor.device == device:
            return tensor
        known = self._shared.get((id(tensor), device))
        if known is None:
            # The tensor itself is kept, too, so that its id is not another's while it stands here.
            known = self._shared[id(tensor), device] = tensor, self.move(tensor, device)
        return known[1]

    def _forget(self, *_: object) -> None:
        self._shared.clear()
