"""The one answer that is shown while it comes, also where it is begun anew at another worker. Torch-free."""

from dataclasses import dataclass


@dataclass
class ShownText:
    """What was shown of an answer so far, and what has come of it since it was begun last.

    Attributes:
        shown: What people have read.
        come: What has come in this attempt.
    """

    shown: str = ""
    come: str = ""

    def begin(self) -> bool:
        """Begin an attempt; returns whether it is not the first of which something was shown."""
        self.come = ""
        return bool(self.shown)

    def add(self, piece: str) -> tuple[str, bool]:
        """Take the next piece.

        Returns:
            What is to be shown now, and whether that takes the place of what was shown.
        """
        self.come += piece
        if self.shown.startswith(self.come):
            return "", False
        if self.come.startswith(self.shown):
            new, self.shown = self.come[len(self.shown) :], self.come
            return new, False
        self.shown = self.come
        return self.come, True

    def end(self) -> tuple[str, bool]:
        """Take notice that nothing more comes; returns as :meth:`add`."""
        if self.shown == self.come:
            return "", False
        self.shown = self.come
        return self.come, True
