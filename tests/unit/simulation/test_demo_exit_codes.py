"""The page about exit codes is what the commands do."""

import re
from pathlib import Path

from backend.cli.output import REFUSED_EXIT_CODE
from splitlearn import errors
from splitlearn.control_plane.errors import SettingError
from splitlearn.parties import SiloAwayError, StuckError
from splitlearn.simulation import exit_codes

PAGE = Path(__file__).parents[3] / "docs" / "exit-codes.md"
ROWS = {
    int(code): set(re.findall(r"`([a-z_]+)`", words))
    for code, words in re.findall(
        r"^\| \[(\d+)\]\([^)]*\) \| ?([^|]*) \|", PAGE.read_text(), flags=re.MULTILINE
    )
}


def test_every_code_has_a_page_of_its_own() -> None:
    linked = re.findall(r"^\| \[(\d+)\]\(exit-codes/([^)]+)\) \|", PAGE.read_text(), flags=re.MULTILINE)
    assert {int(code) for code, _ in linked} == ROWS.keys()
    assert {name for _, name in linked} == {page.name for page in PAGE.with_suffix("").iterdir()}
    for code, name in linked:
        title = (PAGE.with_suffix("") / name).read_text().splitlines()[0]
        words = title.removeprefix(f"# Exit code {code}: ")
        assert words != title
        assert all(word in words for word in ROWS[int(code)])


def test_the_page_lists_every_error_of_the_tree() -> None:
    tree = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.TrunklineError)
        and kind is not errors.TrunklineError
    ]
    tree.extend((SettingError, SiloAwayError, StuckError))
    by_code: dict[int, set[str]] = {}
    for kind in tree:
        by_code.setdefault(kind.exit_code, set()).add(kind.code)
    own = {
        exit_codes.OK,
        exit_codes.BUG,
        exit_codes.INTERRUPTED,
        exit_codes.TERMINATED,
        exit_codes.UNREAD,
        REFUSED_EXIT_CODE,
    }
    assert {code: words for code, words in ROWS.items() if code not in own} == by_code


def test_the_page_lists_what_is_no_error_of_the_tree() -> None:
    assert ROWS[exit_codes.OK] == set()
    assert ROWS[exit_codes.BUG] == {"bug"}
    assert ROWS[REFUSED_EXIT_CODE] == {"refused"}
    interrupted = (exit_codes.INTERRUPTED, exit_codes.UNREAD, exit_codes.TERMINATED)
    assert interrupted == (130, 141, 143)
    assert all(ROWS[code] == {"cancelled"} for code in interrupted)
