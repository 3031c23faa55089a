"""docs/protocol.md names every refusal, by the name and code that it really has."""

from pathlib import Path

import pytest

from splitlearn.channel import errors as channel_errors
from splitlearn.errors import ChannelError, IdentityError, TrunklineError
from splitlearn.identity import Context
from splitlearn.identity import errors as identity_errors

PAGE = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text(encoding="utf-8")
REFUSALS = [
    error
    for module, family in ((channel_errors, ChannelError), (identity_errors, IdentityError))
    for error in vars(module).values()
    if isinstance(error, type) and issubclass(error, family) and error is not family
]


class TestRefusals:
    @pytest.mark.parametrize("error", REFUSALS, ids=lambda error: error.__name__)
    def test_are_all_in_the_table(self, error: type[TrunklineError]) -> None:
        assert f"| `{error.__name__}` | `{error.code}` |" in PAGE

    @pytest.mark.parametrize("error", REFUSALS, ids=lambda error: error.__name__)
    def test_are_all_in_the_drawing_of_their_module(self, error: type[TrunklineError]) -> None:
        module = channel_errors if issubclass(error, ChannelError) else identity_errors
        assert f"── {error.__name__} " in (module.__doc__ or "")


class TestContexts:
    @pytest.mark.parametrize("context", Context)
    def test_are_all_in_the_table(self, context: Context) -> None:
        assert f"| `{context.value}` |" in PAGE
