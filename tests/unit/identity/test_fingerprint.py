import pytest

from splitlearn.identity import FederationRoot, Fingerprint, FingerprintError


class TestText:
    def test_has_nine_groups_of_four(self, root: FederationRoot) -> None:
        assert [len(group) for group in str(root.fingerprint).split("-")] == [4] * 9

    def test_parses_to_itself(self, root: FederationRoot) -> None:
        assert Fingerprint.parse(str(root.fingerprint)) == root.fingerprint

    def test_forgives_how_people_type(self, root: FederationRoot) -> None:
        text = str(root.fingerprint).upper().replace("-", " ").replace("0", "O").replace("1", "l")
        assert Fingerprint.parse(f"  {text} ") == root.fingerprint

    def test_detects_every_single_mistyped_character(self, root: FederationRoot) -> None:
        text = str(root.fingerprint)
        for position, character in enumerate(text):
            if character == "-":
                continue
            other = "x" if character != "x" else "y"
            with pytest.raises(FingerprintError, match="mistyped"):
                Fingerprint.parse(text[:position] + other + text[position + 1 :])

    def test_detects_swapped_groups(self, root: FederationRoot) -> None:
        first, second, *rest = str(root.fingerprint).split("-")
        with pytest.raises(FingerprintError, match="mistyped"):
            Fingerprint.parse("-".join([second, first, *rest]))

    @pytest.mark.parametrize("text", ["", "abcd", "u" * 36, "é" * 36, "0" * 37])
    def test_rejects_what_is_none(self, text: str) -> None:
        with pytest.raises(FingerprintError, match="no fingerprint"):
            Fingerprint.parse(text)


class TestCheck:
    def test_accepts_its_own_key(self, root: FederationRoot) -> None:
        root.fingerprint.check(root.public_key)

    def test_rejects_another_key(self, root: FederationRoot, other_root: FederationRoot) -> None:
        with pytest.raises(FingerprintError):
            root.fingerprint.check(other_root.public_key)
