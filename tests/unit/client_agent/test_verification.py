import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from client_agent.data import Dataset, DatasetRegistry, UnknownDatasetError
from client_agent.verification import refuse_unfit, verified_spec
from splitlearn.control_plane.schemas import DesiredState, SiloJob
from splitlearn.errors import DataError, IdentityError, SpecError, UnservedError
from splitlearn.identity import CertificateKind, FederationRoot, Identity, SigningKey, TrustStore, sign_spec
from splitlearn.records import ColumnMapping, DataFormat
from splitlearn.spec import JobSpec
from tests.unit.client_agent.conftest import Write

NOW = datetime(2030, 1, 2, tzinfo=UTC)
ROOT = FederationRoot.generate()
TRUST = TrustStore(ROOT.public_key)


def identity(kind: CertificateKind, *, root: FederationRoot = ROOT) -> Identity:
    key = SigningKey.generate()
    until = NOW + timedelta(days=9)
    return Identity(root.issue(key.public_key, kind=kind, name="x", not_before=NOW, not_after=until), key)


SIGNER = identity(CertificateKind.SPEC_SIGNER)


def spec(**fields: Any) -> JobSpec:
    return JobSpec.parse({"model": "m", "silos": [{"name": "north", "dataset": "notes"}], **fields})


def shown(spec_bytes: bytes, *, signer: Identity = SIGNER, signed: bytes | None = None) -> SiloJob:
    signature = sign_spec(spec_bytes if signed is None else signed, signer=signer)
    return SiloJob(
        id="0f3c0000-0000-4000-8000-000000000001",
        name="job",
        state="awaiting_approval",
        desired=DesiredState.RUN,
        approval="waiting",
        spec=base64.b64encode(spec_bytes).decode(),
        signature=base64.b64encode(signature.to_bytes()).decode(),
    )


class TestVerifiedSpec:
    def test_is_what_was_signed(self) -> None:
        assert verified_spec(shown(spec().canonical_bytes()), trust=TRUST, now=NOW) == spec()

    def test_of_other_bytes_than_were_signed_is_refused(self) -> None:
        job = shown(spec(rounds=9).canonical_bytes(), signed=spec().canonical_bytes())
        with pytest.raises(IdentityError):
            verified_spec(job, trust=TRUST, now=NOW)

    def test_of_another_federation_is_refused(self) -> None:
        stranger = identity(CertificateKind.SPEC_SIGNER, root=FederationRoot.generate())
        with pytest.raises(IdentityError):
            verified_spec(shown(spec().canonical_bytes(), signer=stranger), trust=TRUST, now=NOW)

    @pytest.mark.parametrize("kind", [CertificateKind.WORKER, CertificateKind.SILO])
    def test_signed_by_another_kind_of_party_is_refused(self, kind: CertificateKind) -> None:
        with pytest.raises(IdentityError):
            verified_spec(shown(spec().canonical_bytes(), signer=identity(kind)), trust=TRUST, now=NOW)

    def test_in_another_form_than_the_canonical_is_refused(self) -> None:
        with pytest.raises(SpecError, match="canonical"):
            verified_spec(shown(b" " + spec().canonical_bytes()), trust=TRUST, now=NOW)

    def test_that_asks_for_what_is_not_served_is_refused(self) -> None:
        with pytest.raises(UnservedError):
            verified_spec(shown(spec(release="project").canonical_bytes()), trust=TRUST, now=NOW)

    def test_that_is_no_base_64_is_refused(self) -> None:
        job = shown(spec().canonical_bytes()).model_copy(update={"signature": "A"})
        with pytest.raises(IdentityError, match="not base 64"):
            verified_spec(job, trust=TRUST, now=NOW)


class TestRefuseUnfit:
    @pytest.fixture
    def registry(self, state_dir: Path, write: Write) -> DatasetRegistry:
        registry = DatasetRegistry(state_dir)
        path = write("a.txt", "x\n")
        registry.put(
            Dataset.read(
                "notes", path, data_format=DataFormat.TEXT, columns=ColumnMapping(), task="causal-lm"
            )
        )
        return registry

    def test_passes_what_the_silo_has(self, registry: DatasetRegistry) -> None:
        refuse_unfit(spec(), silo="north", registry=registry)

    def test_of_another_roster(self, registry: DatasetRegistry) -> None:
        with pytest.raises(SpecError, match="no silo 'south'"):
            refuse_unfit(spec(), silo="south", registry=registry)

    def test_of_an_unknown_data_set(self, registry: DatasetRegistry) -> None:
        with pytest.raises(UnknownDatasetError):
            refuse_unfit(spec(silos=[{"name": "north", "dataset": "x"}]), silo="north", registry=registry)

    def test_of_another_kind_of_task(self, registry: DatasetRegistry) -> None:
        with pytest.raises(DataError, match="is for causal-lm"):
            refuse_unfit(spec(task={"kind": "sft"}), silo="north", registry=registry)
