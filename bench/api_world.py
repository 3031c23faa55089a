"""The first of everything in a control plane's database, made by its own code."""

import hashlib
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from backend.audit.service import OPERATOR
from backend.db.models import Dataset, Model, Organization, PartyStatus, Project, Silo, Worker
from backend.jobs.submission import Submission, submit
from backend.server import Server
from splitlearn.planning import ModelManifest, TensorEntry, TensorFile

DATASET = "notes"
MODEL = "bench"
_LAYERS, _WIDTH = 12, 64


def silo_name(number: int) -> str:
    """Return a silo's name; the first is number 0."""
    return f"silo-{number:04d}"


def make_spec(silos: list[int]) -> dict[str, Any]:
    """Return a job of these silos that may be submitted."""
    named = [{"name": silo_name(number), "dataset": DATASET} for number in silos]
    return {"name": "bench", "model": MODEL, "silos": named, "silo_blocks": "frozen"}


def make_first(server: Server) -> None:
    """Make one of each."""
    now = datetime.now(UTC)
    with server.database.write() as session:
        organization = session.scalars(select(Organization)).one()
        project = session.scalars(select(Project)).one()
        _add_parties(session, organization, now=now)
        _add_model(session, project, now=now)
        session.flush()
        submit(
            session,
            Submission(make_spec([0]), project.name, organization.id, OPERATOR),
            settings=server.settings,
            now=now,
        )


def _add_parties(session: Session, organization: Organization, *, now: datetime) -> None:
    common: dict[str, Any] = {
        "organization_id": organization.id,
        "public_key": bytes(32),
        "status": PartyStatus.ENROLLED,
        "enrolled_at": now,
        "last_seen_at": now,
        "epoch": 1,
    }
    silo, worker = Silo(name=silo_name(0), **common), Worker(name="gpu-1", **common)
    session.add_all([silo, worker])
    session.flush()
    session.add(
        Dataset(
            silo_id=silo.id,
            name=DATASET,
            task="any",
            num_rows=1000,
            schema_digest=bytes(32),
            announced_at=now,
        )
    )


def _add_model(session: Session, project: Project, *, now: datetime) -> None:
    manifest = _make_manifest()
    session.add(
        Model(
            project_id=project.id,
            name=MODEL,
            source=manifest.source,
            family=manifest.family,
            num_layers=manifest.num_layers,
            num_parameters=manifest.num_parameters,
            num_bytes=manifest.num_bytes,
            digest=bytes.fromhex(manifest.digest()),
            manifest=manifest.model_dump(mode="json"),
            created_at=now,
        )
    )


def _make_manifest() -> ModelManifest:
    """Return a model's description; its files are not there, and nobody asks for them."""

    def file(name: str, tensor: str) -> TensorFile:
        entry = TensorEntry(dtype="F32", shape=(_WIDTH, _WIDTH), num_bytes=4 * _WIDTH * _WIDTH)
        digest = hashlib.sha256(name.encode()).hexdigest()
        return TensorFile(name=name, digest=digest, num_bytes=entry.num_bytes + 100, tensors={tensor: entry})

    layers = [
        file(f"layer-{number:05d}.safetensors", f"model.layers.{number}.self_attn.q_proj.weight")
        for number in range(_LAYERS)
    ]
    return ModelManifest(
        source="bench",
        family="llama",
        num_layers=_LAYERS,
        hidden_size=_WIDTH,
        num_parameters=(_LAYERS + 2) * _WIDTH * _WIDTH,
        num_bytes=4 * (_LAYERS + 2) * _WIDTH * _WIDTH,
        config={
            "model_type": "llama",
            "num_hidden_layers": _LAYERS,
            "hidden_size": _WIDTH,
            "vocab_size": _WIDTH,
            "tie_word_embeddings": False,
        },
        companions=(),
        files=(
            file("after.safetensors", "lm_head.weight"),
            file("before.safetensors", "model.embed_tokens.weight"),
            *layers,
        ),
    )
