"""Which layers of a trunk lie on which device: contiguous ranges, by memory alone. Pure."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from splitlearn.planning.errors import PlacementError

MAX_DEVICES = 8
"""Devices that one trunk is laid over at most: all subsets and orders of them are looked at."""

_SHARES = 1 << 16
"""How finely the fullest device's share is compared: 1/65536 of a device's memory."""
_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """A device, and how many bytes of it a trunk may take.

    Attributes:
        name: Unique among the devices, such as ``cuda:1``.
        free_bytes: What may be used; below 0 is nothing.
    """

    name: str
    free_bytes: int


@dataclass(frozen=True, slots=True)
class LayerRange:
    """Contiguous layers on one device.

    Attributes:
        device: Its name.
        first_layer: Original number of the first layer.
        last_layer: Of the last one, which belongs to the range.
        num_bytes: What they need.
        free_bytes: What the device offered.
    """

    device: str
    first_layer: int
    last_layer: int
    num_bytes: int
    free_bytes: int

    @property
    def layers(self) -> range:
        """Original numbers of the layers."""
        return range(self.first_layer, self.last_layer + 1)


@dataclass(frozen=True, slots=True)
class Burden:
    """What must lie somewhere, layer by layer.

    Attributes:
        layers: Original numbers, contiguous.
        layer_bytes: What each needs while it trains: weights, gradients, optimiser, activations.
        entrance_bytes: What the device of the first layer needs besides.
        exit_bytes: What the device of the last layer needs besides.
    """

    layers: range
    layer_bytes: tuple[int, ...]
    entrance_bytes: int = 0
    exit_bytes: int = 0

    def __post_init__(self) -> None:
        assert len(self.layers) == len(self.layer_bytes) >= 1, "one number for each layer"

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.layer_bytes) + self.entrance_bytes + self.exit_bytes

    def bytes_of(self, first: int, end: int) -> int:
        """Return what the layers at positions ``first`` to ``end`` need on one device."""
        before = self.entrance_bytes if first == 0 else 0
        after = self.exit_bytes if end == len(self.layer_bytes) else 0
        return sum(self.layer_bytes[first:end]) + before + after


def place_layers(burden: Burden, devices: Sequence[DeviceMemory]) -> tuple[LayerRange, ...]:
    """Lay layers over as few devices as hold them, so that the fullest of these is as empty as can be.

    Among equals, the devices that are named first. The same table always gives the same answer, and
    wherever any contiguous ranges in any order of the devices fit, some are found.

    Args:
        burden: What the layers need.
        devices: At most :data:`MAX_DEVICES`, each name once.

    Returns:
        The ranges in the order of the layers; a device without layers is left out.

    Raises:
        PlacementError: They fit nowhere; says how far the layers get, and what would be enough.
    """
    assert 0 < len(devices) <= MAX_DEVICES, "the caller refuses others by name"
    plan = _Plan(burden)
    full = plan.best([device.free_bytes for device in devices], _subsets(len(devices)))
    if full is None:
        raise _refusal(burden, devices, plan)
    fewest = [subset for subset in _subsets(len(devices)) if subset.bit_count() <= len(full)]
    order = _most_even(plan, devices, fewest) or full
    return _ranges(burden, devices, order)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Positions ``first`` to ``end`` on the device of this index."""

    device: int
    first: int
    end: int


class _Plan:
    """How far layers get with a set of devices, by the set: each new one takes as many as it holds.

    To get further with the devices so far never hurts the next one, so the furthest of each set is enough.
    """

    def __init__(self, burden: Burden) -> None:
        self._burden = burden
        self._sums = [0, *accumulate(burden.layer_bytes)]
        self.furthest = 0

    def best(self, limits: Sequence[int], subsets: Iterable[int]) -> tuple[_Piece, ...] | None:
        """Return the ranges on the first of the smallest sets that hold all layers; None for none.

        Args:
            limits: Bytes of each device.
            subsets: Sets of devices as bits, no set before its own subsets.
        """
        reached: dict[int, tuple[int, int]] = {0: (0, -1)}  # set -> positions done, the device added last
        num_layers = len(self._burden.layer_bytes)
        self.furthest = 0
        for subset in subsets:
            if not subset:
                continue
            options = [
                (self._extend(reached[subset & ~(1 << device)][0], limits[device]), device)
                for device in range(len(limits))
                if subset >> device & 1
            ]
            end, last = max(options)  # the first-named devices come first where all get equally far
            reached[subset] = (end, last)
            self.furthest = max(self.furthest, end)
            if end == num_layers:
                return _pieces(reached, subset)
        return None

    def _extend(self, first: int, limit: int) -> int:
        """Return the position up to which a device with this limit takes layers from ``first`` on."""
        room = limit - (self._burden.entrance_bytes if first == 0 else 0) + self._sums[first]
        end = max(first, bisect_right(self._sums, room) - 1)
        last = len(self._burden.layer_bytes)
        if end == last and self._sums[last] + self._burden.exit_bytes > room:
            end = max(first, bisect_right(self._sums, room, hi=last) - 1)
        return end


def _pieces(reached: dict[int, tuple[int, int]], subset: int) -> tuple[_Piece, ...]:
    found: list[_Piece] = []
    while subset:
        end, device = reached[subset]
        subset &= ~(1 << device)
        first = reached[subset][0]
        if end > first:
            found.append(_Piece(device, first, end))
    return tuple(reversed(found))


def _subsets(num_devices: int) -> list[int]:
    return sorted(range(1 << num_devices), key=lambda subset: (subset.bit_count(), subset))


def _most_even(
    plan: _Plan, devices: Sequence[DeviceMemory], subsets: Sequence[int]
) -> tuple[_Piece, ...] | None:
    """Return the ranges for the smallest share of the devices' memory that is enough."""
    found: tuple[_Piece, ...] | None = None
    low, high = 0, _SHARES
    while low < high:
        middle = (low + high) // 2
        order = plan.best([device.free_bytes * middle // _SHARES for device in devices], subsets)
        if order is None:
            low = middle + 1
        else:
            found, high = order, middle
    return found


def _ranges(
    burden: Burden, devices: Sequence[DeviceMemory], pieces: Sequence[_Piece]
) -> tuple[LayerRange, ...]:
    return tuple(
        LayerRange(
            device=devices[piece.device].name,
            first_layer=burden.layers[piece.first],
            last_layer=burden.layers[piece.end - 1],
            num_bytes=burden.bytes_of(piece.first, piece.end),
            free_bytes=devices[piece.device].free_bytes,
        )
        for piece in pieces
    )


def _refusal(burden: Burden, devices: Sequence[DeviceMemory], plan: _Plan) -> PlacementError:
    offered = ", ".join(f"{device.name} {_size(device.free_bytes)}" for device in devices)
    fitting = plan.furthest
    rest = burden.bytes_of(fitting, len(burden.layer_bytes))
    held = f"layers {_names(burden.layers[:fitting])} fit" if fitting else "not one layer fits"
    return PlacementError(
        f"layers {_names(burden.layers)} of the trunk need {_size(burden.total)}, and do not fit in what is "
        f"free ({offered}): {held}, the other {len(burden.layers) - fitting} need {_size(rest)} elsewhere",
        num_fitting=fitting,
        missing_bytes=rest,
    )


def _names(layers: range) -> str:
    return str(layers[0]) if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.2f} GiB"
