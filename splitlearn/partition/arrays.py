"""Between torch and the wire: a segment's tensors as arrays, and back."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_array(tensor_ND: Tensor) -> NDArray[np.float32]:
    """Return a detached tensor's values as an fp32 array; shares memory where it lies on the CPU as fp32."""
    array: NDArray[np.float32] = tensor_ND.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy()
    return array


def to_tensor(array: NDArray[np.float32], *, device: torch.device | str = "cpu") -> Tensor:
    """Return an opened array as a tensor on ``device``; shares memory on the CPU."""
    return torch.from_numpy(array).to(device)
