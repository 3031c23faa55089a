"""Any changed, dropped, moved or added row of an export is found and named."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.audit.chain import Head, canonical
from backend.audit.errors import AuditBrokenError, AuditFileError
from backend.audit.lines import head_line, read_line
from backend.audit.verification import last_head, verify
from splitlearn.identity import CertificateKind, FederationRoot
from tests.unit.backend.audit.conftest import NOW, Writer, content

NUM_ROWS = 7
WRITER = Writer()
EXPORT = WRITER.export(NUM_ROWS, hidden=frozenset({3, 6}))
ROOT = WRITER.root.public_key
ROWS = st.integers(0, NUM_ROWS - 1)
FIELDS = st.sampled_from(["action", "actor_name", "address", "at", "outcome", "salt", "subject_name"])


def named(error: pytest.ExceptionInfo[AuditBrokenError]) -> set[int]:
    """The rows, or lines, that an error names."""
    return {int(number) for number in re.findall(r"(?:rows?|line) (\d+)", error.value.message)}


def refused(lines: list[bytes], *, earlier: Head | None = None) -> pytest.ExceptionInfo[AuditBrokenError]:
    with pytest.raises(AuditBrokenError) as caught:
        verify(lines, ROOT, earlier=earlier)
    return caught


class TestWhole:
    @pytest.mark.parametrize("num_rows", [0, 1, 2, 30])
    def test_passes(self, writer: Writer, num_rows: int) -> None:
        found = verify(writer.export(num_rows), writer.root.public_key)
        assert (found.num_rows, found.num_hidden, found.signed_at) == (num_rows, 0, NOW)

    def test_passes_with_hidden_rows_and_the_same_digest(self, writer: Writer) -> None:
        shown = verify(writer.export(5), writer.root.public_key)
        hidden = verify(writer.export(5, hidden=frozenset({1, 5})), writer.root.public_key)
        assert (hidden.num_hidden, hidden.digest) == (2, shown.digest)

    def test_hidden_rows_show_nothing(self) -> None:
        assert b"user-3" not in b"".join(EXPORT)
        assert b"user-4" in b"".join(EXPORT)


class TestMutations:
    @given(row=ROWS, field=FIELDS, text=st.text(max_size=40))
    def test_of_a_field_are_found_at_the_row(self, row: int, field: str, text: str) -> None:
        fields = json.loads(EXPORT[row])
        if "hidden" in fields or fields["content"][field] == text:
            return
        fields["content"][field] = text
        lines = [*EXPORT[:row], canonical(fields) + b"\n", *EXPORT[row + 1 :]]
        assert named(refused(lines)) == {row + 1}

    @given(line=st.integers(0, NUM_ROWS), place=st.integers(0, 10_000), byte=st.integers(0, 255))
    @settings(max_examples=300)
    def test_of_any_byte_are_found_at_the_line(self, line: int, place: int, byte: int) -> None:
        raw = bytearray(EXPORT[line])
        place %= len(raw)
        if raw[place] == byte:
            return
        raw[place] = byte
        error = refused([*EXPORT[:line], bytes(raw), *EXPORT[line + 1 :]])
        # A digit of a row's own number may make it any row's; the head is named by the row it is said to end.
        assert line + 1 in named(error) or line == NUM_ROWS

    @given(dropped=st.sets(st.integers(0, NUM_ROWS), min_size=1))
    def test_by_dropping_lines_are_found_at_the_first(self, dropped: set[int]) -> None:
        error = refused([line for number, line in enumerate(EXPORT) if number not in dropped])
        first = min(dropped) + 1
        assert first in named(error) or first - 1 in named(error), error.value.message

    @given(order=st.permutations(range(NUM_ROWS)))
    def test_by_moving_rows_are_found_at_the_first(self, order: list[int]) -> None:
        moved = [place for place, row in enumerate(order) if place != row]
        if moved:
            assert moved[0] + 1 in named(refused([*(EXPORT[row] for row in order), EXPORT[-1]]))

    @given(place=st.integers(0, NUM_ROWS + 1), row=ROWS)
    def test_by_adding_a_row_are_found(self, place: int, row: int) -> None:
        lines = [*EXPORT[:place], EXPORT[row], *EXPORT[place:]]
        expected = "something follows the head" if place > NUM_ROWS else f"row {place + 1} belongs"
        assert place == row or place == row + 1 or expected in refused(lines).value.message
        refused(lines)

    @given(kept=st.integers(0, NUM_ROWS - 1))
    def test_by_cutting_the_end_off_are_found_by_the_head(self, kept: int) -> None:
        assert f"row {kept + 1} is missing" in refused([*EXPORT[:kept], EXPORT[-1]]).value.message
        assert "cut off" in refused(EXPORT[:kept]).value.message

    @given(cut=st.integers(1, sum(map(len, EXPORT)) - 1))
    def test_by_cutting_anywhere_are_found(self, cut: int) -> None:
        refused(b"".join(EXPORT)[:cut].splitlines(keepends=True))


class TestForgedChain:
    def changed(self, **changes: Any) -> tuple[list[bytes], bytes]:
        contents = [content(number) for number in range(1, NUM_ROWS + 1)]
        contents[3].update(changes)
        return WRITER.rows(contents)

    def test_made_anew_does_not_reach_the_head(self) -> None:
        lines, _ = self.changed(outcome="refused")
        assert "made anew" in refused([*lines, EXPORT[-1]]).value.message

    def test_with_a_head_by_another_root_is_refused(self) -> None:
        forger = Writer()
        lines, digest = self.changed(outcome="refused")
        assert "not signed" in refused([*lines, head_line(forger.head(NUM_ROWS, digest))]).value.message

    def test_of_another_federation_is_refused_at_the_first_row(self) -> None:
        assert named(refused(Writer().export(3))) == {1}

    @pytest.mark.parametrize("kind", [CertificateKind.SILO, CertificateKind.WORKER])
    def test_with_a_head_by_another_party_is_refused(self, kind: CertificateKind) -> None:
        lines, digest = WRITER.rows([content(1)])
        head = WRITER.head(1, digest, certificate=WRITER.certificate(kind=kind))
        assert "not signed" in refused([*lines, head_line(head)]).value.message

    def test_with_a_certificate_for_another_key_is_refused(self) -> None:
        lines, digest = WRITER.rows([content(1)])
        other = Writer(root=WRITER.root)
        head = WRITER.head(1, digest, certificate=other.certificate())
        assert "does not verify" in refused([*lines, head_line(head)]).value.message

    def test_rewritten_by_the_signer_itself_contradicts_an_earlier_export(self) -> None:
        lines, digest = self.changed(outcome="refused")
        forged = [*lines, head_line(WRITER.head(NUM_ROWS, digest))]
        verify(forged, ROOT)  # the key signed it: alone it looks right
        error = refused(forged, earlier=last_head(WRITER.export(5)))
        assert "history was rewritten" in error.value.message
        assert named(error) == {5}


class TestEarlier:
    @given(before=st.integers(0, NUM_ROWS))
    def test_is_continued(self, before: int) -> None:
        assert verify(EXPORT, ROOT, earlier=last_head(WRITER.export(before))).num_rows == NUM_ROWS

    def test_export_that_is_shorter_lost_its_rows(self) -> None:
        error = refused(WRITER.export(4), earlier=last_head(EXPORT))
        assert "rows 5 to 7 were dropped" in error.value.message

    def test_head_of_another_root_is_refused(self) -> None:
        forged = Writer(root=FederationRoot.generate())
        assert "not signed" in refused(EXPORT, earlier=last_head(forged.export(2))).value.message

    def test_without_a_head_is_refused(self) -> None:
        with pytest.raises(AuditBrokenError, match="cut off"):
            last_head(EXPORT[:-1])


class TestLines:
    @pytest.mark.parametrize(
        "line",
        [
            b"\n",
            b"{}\n",
            b"[]\n",
            b"1\n",
            b"\xff\n",
            b"[" * 100_000,
            b'{"row":1}\n',
            b'{"content":[],"digest":"' + b"0" * 64 + b'","row":1}\n',
            b'{"content":{},"digest":"' + b"0" * 62 + b'","row":1}\n',
            b'{"content":{},"digest":"' + b"0" * 64 + b'","row":true}\n',
            b'{"content":{},"digest":"' + b"0" * 64 + b'","row":-1}\n',
            b'{"content":{},"digest":"' + b"0" * 64 + b'","row":1,"row":1}\n',
            b'{"content":{"x":NaN},"digest":"' + b"0" * 64 + b'","row":1}\n',
            EXPORT[0].rstrip(),
            b" " + EXPORT[0],
            EXPORT[-1].replace(b"audit/v1", b"audit/v2"),
            EXPORT[-1].replace(b'"certificate":"', b'"certificate":"AAAA'),
        ],
    )
    def test_that_are_none_are_refused_with_their_place(self, line: bytes) -> None:
        with pytest.raises(AuditFileError, match=r"^line 1: "):
            read_line(line, where="line 1")

    def test_longer_than_any_row_are_refused(self) -> None:
        with pytest.raises(AuditFileError, match="longer than"):
            read_line(b" " * (1 << 23), where="line 1")

    def test_head_is_read_as_it_was_written(self) -> None:
        head = WRITER.head(3, b"\1" * 32)
        assert read_line(head_line(head), where="line 1") == head

    def test_moment_of_a_head_is_signed(self) -> None:
        head = last_head(EXPORT)
        later = Head(head.number, head.digest, NOW + timedelta(days=1), head.certificate, head.signature)
        assert "not signed" in refused([*EXPORT[:-1], head_line(later)]).value.message
