"""The loss of causal language models, by sums, so that token weights can be applied exactly once.

Axes: B rows, T padded length, V vocabulary.
"""

from torch import Tensor
from torch.nn import functional

from splitlearn.tasks import IGNORED


def next_token_labels(labels_BT: Tensor) -> Tensor:
    """Return int64 [B, T]: at each position the label of the next one; nothing to learn at the last."""
    return functional.pad(labels_BT, (0, 1), value=IGNORED)[:, 1:].contiguous()


def summed_loss(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Return the fp32 sum, over label tokens, of the negative log-likelihood in nats; shape []."""
    logits_NV = logits_BTV.float().view(-1, logits_BTV.shape[-1])
    return functional.cross_entropy(
        logits_NV, next_token_labels(labels_BT).view(-1), ignore_index=IGNORED, reduction="sum"
    )
