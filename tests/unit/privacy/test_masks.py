"""What masks hide: unique streams, uniform words, and the subtraction attack."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from splitlearn.privacy import CommonMask, PairwiseMasks, Roster, SumPlace, SumServer, decode, encode
from splitlearn.privacy.masks import MaskStream
from splitlearn.privacy.roster import sign_words
from splitlearn.wire import Message, SumConsents, SumRoster, SumTotal, Words32
from tests.unit.privacy.conftest import (
    DIGEST,
    FRACTION_BITS,
    IDENTITIES,
    NAMES,
    Member,
    carry,
    silo,
)

KEYS = {name: X25519PrivateKey.generate() for name in NAMES}


def roster(
    *,
    job: str = "job-1",
    round_number: int = 1,
    step: int = 0,
    attempt: int = 1,
    names: tuple[str, ...] = NAMES,
) -> Roster:
    place = SumPlace(job, DIGEST, round_number, step)
    members = tuple(
        sign_words(
            place,
            identity=IDENTITIES[name],
            key=KEYS[name].public_key().public_bytes_raw(),
            num_tokens=1,
            num_words=8,
            next_attempt=attempt,
        )
        for name in names
    )
    return Roster(place, attempt, names, members)


def mask_of(name: str, of: Roster, num_words: int = 8) -> Words32:
    words = np.zeros(num_words, np.uint32)
    PairwiseMasks(KEYS[name], roster=of, own=name).add_to(words)
    return words


class TestMasks:
    def test_cancel_in_the_sum(self) -> None:
        shown = roster()
        total = sum((mask_of(name, shown, 1000) for name in NAMES), start=np.zeros(1000, np.uint32))
        assert not total.any()
        assert mask_of("ada", shown).any()

    def test_are_unique_over_a_thousand_triples(self) -> None:
        """Job, round and attempt: no two give one silo the same mask, and no pair's key comes twice."""
        triples = list(itertools.product(["job-1", "job-2"], range(1, 26), range(1, 21)))
        assert len(triples) == 1000
        masks, keys = set(), set()
        for job, round_number, attempt in triples:
            shown = roster(job=job, round_number=round_number, attempt=attempt, names=NAMES[:3])
            pairwise = PairwiseMasks(KEYS["ada"], roster=shown, own="ada")
            words = np.zeros(8, np.uint32)
            pairwise.add_to(words)
            masks.add(words.tobytes())
            keys |= {
                pairwise.key_with(peer, use=use) for peer in ("bert", "carl") for use in ("mask", "seed")
            }
            masks.add(CommonMask(bytes(32), roster=shown).stream().next(8).tobytes())
        assert len(masks) == 2 * len(triples)
        assert len(keys) == 4 * len(triples)

    @pytest.mark.parametrize("changes", [{"step": 1}, {"names": NAMES[:3]}])
    def test_differ_by_step_and_by_roster(self, changes: dict[str, object]) -> None:
        assert not np.array_equal(mask_of("ada", roster()), mask_of("ada", roster(**changes)))  # type: ignore[arg-type]

    def test_come_the_same_in_parts(self) -> None:
        whole, parts = np.zeros(100, np.uint32), np.zeros(100, np.uint32)
        PairwiseMasks(KEYS["bert"], roster=roster(), own="bert").add_to(whole)
        masks = PairwiseMasks(KEYS["bert"], roster=roster(), own="bert")
        for begin, end in itertools.pairwise((0, 1, 17, 64, 100)):
            masks.add_to(parts[begin:end])
        assert np.array_equal(whole, parts)


# The chi-square statistic of n words over the 256 values of one byte has, for uniform words, 255 degrees of
# freedom: mean 255, standard deviation sqrt(510) = 22.6. 255 + 7 x 22.6 = 413 is exceeded with probability
# below 1e-8 (Wilson-Hilferty: z = ((413/255)^(1/3) - 1 + 2/2295) / sqrt(2/2295) = 5.9, that is 2e-9), so that
# of the some hundred looks here none fails by chance in 10^6 runs.
CHI_SQUARE_LIMIT = 413
NUM_WORDS = 60_000


def largest_chi_square(words: Words32) -> float:
    """Over the four bytes of each word."""
    expected = words.size / 256
    columns = words.view(np.uint8).reshape(-1, 4).T
    return max(
        float((((np.bincount(column, minlength=256) - expected) ** 2) / expected).sum()) for column in columns
    )


class TestWhatTheServerHolds:
    def summed(self, folder: Path) -> tuple[dict[str, Member], list[Words32]]:
        """Four silos whose blocks are far from uniform, and every masked sum that the server made."""
        members = {
            name: Member(
                silo(name, folder, private_key=KEYS[name]),
                [np.full(NUM_WORDS, 0.25 * (index + 1), np.float32)],
                num_tokens=4,
            )
            for index, name in enumerate(NAMES)
        }
        totals: list[Words32] = []

        def keep(name: str, message: Message) -> Message:
            if name == "ada" and isinstance(message, SumTotal):
                totals.append(message.words.copy())
            return message

        carry(SumServer(NAMES, round_number=1, step=0), members, to_silo=keep)
        return members, totals

    def test_is_uniform(self, tmp_path: Path) -> None:
        members, totals = self.summed(tmp_path)
        for member in members.values():
            [part] = member.parts
            assert largest_chi_square(part.words) < CHI_SQUARE_LIMIT, "a silo's masked words"
        [total] = totals
        assert largest_chi_square(total) < CHI_SQUARE_LIMIT, "the average, which the server must not see"

    def test_would_be_found_out_without_masks(self) -> None:
        """Positive control: what is to be hidden fails the same look by far."""
        rng = np.random.default_rng(0)
        values = rng.standard_normal(NUM_WORDS).astype(np.float32)
        words = encode(
            values, name="t", num_tokens=1, total_tokens=4, num_silos=4, fraction_bits=FRACTION_BITS
        )
        assert largest_chi_square(words) > 1000 * CHI_SQUARE_LIMIT
        assert largest_chi_square(rng.integers(0, 2**32, NUM_WORDS, dtype=np.uint32)) < CHI_SQUARE_LIMIT

    def test_together_with_one_silos_secrets_shows_no_other_silo(self, tmp_path: Path) -> None:
        """Server and dora pool all they have: every word sent, dora's masks with each, the common seed.

        What is left on ada's words is the masks that she shares with bert and carl, who keep them.
        """
        members, [total] = self.summed(tmp_path)
        shown = members["ada"].received[1]
        place = SumPlace("job-1", DIGEST, 1, 0)
        assert isinstance(shown, SumRoster)
        consents = members["dora"].received[2]
        assert isinstance(consents, SumConsents)
        assert consents.seed is not None
        known = Roster(place, shown.attempt, NAMES, shown.members)
        doras = PairwiseMasks(KEYS["dora"], roster=known, own="dora")
        [part] = members["ada"].parts
        left = part.words.copy()
        left -= MaskStream(doras.key_with("ada", use="mask")).next(NUM_WORDS)
        seed = doras.open_seed(consents.seed)
        left -= CommonMask(seed, roster=known).stream().next(NUM_WORDS)
        assert largest_chi_square(left) < CHI_SQUARE_LIMIT

        # Positive controls: the attackers' seed is right, and with bert's and carl's keys they would succeed.
        average = decode(total - CommonMask(seed, roster=known).stream().next(NUM_WORDS), fraction_bits=24)
        assert np.allclose(average, 0.625)
        for name in ("bert", "carl"):
            masks = PairwiseMasks(KEYS[name], roster=known, own=name)
            left -= MaskStream(masks.key_with("ada", use="mask")).next(NUM_WORDS)
        assert np.allclose(decode(left, fraction_bits=24), 0.25 / 4)
