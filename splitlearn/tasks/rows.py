"""Tokenised rows: what a model reads and what it is asked to write. Torch-free."""

from dataclasses import dataclass

IGNORED = -100
"""Label of a token that takes no part in the loss, as in Hugging Face."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One sequence of tokens with its labels.

    Attributes:
        input_ids: Tokens, at least one.
        labels: Of the same length: the token itself where it is to be learned, else ``IGNORED``. Not
            shifted: the loss compares the prediction at t with the label at t + 1.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def num_label_tokens(self) -> int:
        """Labels that the loss can count. Nothing predicts the first token, so its label does not."""
        return sum(label != IGNORED for label in self.labels[1:])

    def __repr__(self) -> str:
        """Say counts and no token: rows are private text."""
        return f"TokenRow({len(self.input_ids)} tokens, {self.num_label_tokens} learned)"


@dataclass(frozen=True, slots=True)
class Example:
    """One row of the data set, ready for training and for evaluation.

    Attributes:
        candidates: For ``choice`` one row per candidate answer, in the order of the task, all after the
            same prompt tokens; else one row.
        right: Index of the candidate that is right: the row that is trained on.
        fingerprint: Digest of the row's texts; equal texts have equal fingerprints.
        group: Digest that rows about the same share; empty for a row by itself.
        exact: Of a row with candidates of its own: which are as good as the right one; else empty.
        token_f1: Of such a row: how many words each candidate shares with the right one; else empty.
    """

    candidates: tuple[TokenRow, ...]
    right: int
    fingerprint: bytes
    group: bytes = b""
    exact: tuple[bool, ...] = ()
    token_f1: tuple[float, ...] = ()

    @property
    def target(self) -> TokenRow:
        """The row that is trained on, and whose loss is the evaluation loss."""
        return self.candidates[self.right]
