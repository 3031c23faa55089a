"""``trunkline root``: the federation root, wherever it lives. Needs no server and no network."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import BaseModel, ValidationError

from backend.cli.options import AsJson, group
from backend.cli.output import CommandError, show
from backend.encoding import from_base64, to_base64
from backend.schemas import Base64, Name
from splitlearn.errors import StorageError
from splitlearn.identity import Certificate, CertificateKind, FederationRoot, PublicKey, RevocationList

app = group(
    "root",
    "The federation root: make it, sign requests, revoke. May be used offline.",
    example="trunkline root init",
)

RootFile = Annotated[Path, typer.Option("--root", help="The root's file, mode 0600.")]
Out = Annotated[Path | None, typer.Option("--out", help="Write here instead of to standard output.")]
_MAX_FILE_BYTES = 1 << 20


@app.command("init", epilog="Example: trunkline root init --root /media/usb/root.key")
def init(*, root: RootFile = Path("root.key"), as_json: AsJson = False) -> None:
    """Make a federation root; keep the file where nobody else can read it, and back it up."""
    made = FederationRoot.generate()
    made.save(root)
    facts = {
        "file": str(root),
        "fingerprint": str(made.fingerprint),
        "TRUNKLINE_ROOT_PUBLIC_KEY": made.public_key.raw.hex(),
    }
    show(facts, as_json=as_json)


@app.command("sign", epilog="Example: trunkline root sign north.json --root root.key --out north.certificate")
def sign(
    request: Annotated[
        Path,
        typer.Argument(
            help="What trunkline silos request NAME printed, or GET /federation/spec-signer answered."
        ),
    ],
    *,
    root: RootFile = Path("root.key"),
    days: Annotated[int, typer.Option(min=1, max=3650, help="Validity.")] = 365,
    out: Out = None,
) -> None:
    """Sign a certificate for a silo, a worker or the server, whose request you have checked with its people.

    The server's own (spec-signer) lets it vouch for job specifications; without it no job can be submitted.
    """
    asked = _read_request(request)
    now = datetime.now(tz=UTC)
    certificate = FederationRoot.load(root).issue(
        PublicKey(from_base64(asked.public_key, field="public_key")),
        kind=asked.kind,
        name=asked.name,
        not_before=now,
        not_after=now + timedelta(days=days),
    )
    _write({"certificate": to_base64(certificate.to_bytes())}, out)
    typer.echo(f"signed: {asked.kind.value} {asked.name}, serial {certificate.serial}", err=True)


@app.command("revoke", epilog="Example: trunkline root revoke 123 --previous list.json --out next-list.json")
def revoke(
    serials: Annotated[list[str], typer.Argument(help="Serials of certificates, in decimal.")],
    *,
    root: RootFile = Path("root.key"),
    previous: Annotated[
        Path | None, typer.Option(help="The newest list so far; left out for the very first one.")
    ] = None,
    out: Out = None,
) -> None:
    """Sign the next revocation list; install it by PUT /federation/revocations."""
    if not all(serial.isdecimal() for serial in serials):
        raise CommandError(f"serials are decimal numbers, not {', '.join(serials)}", exit_code=2)
    last = _read_list(previous) if previous else None
    signed = FederationRoot.load(root).revoke(
        map(int, serials), issued_at=datetime.now(tz=UTC), previous=last
    )
    _write({"revocation_list": to_base64(signed.to_bytes())}, out)
    typer.echo(f"list {signed.number} with {len(signed.serials)} serials", err=True)


@app.command("list", epilog="Example: trunkline root list north.certificate next-list.json")
def list_files(
    files: Annotated[list[Path], typer.Argument(help="Certificates and revocation lists.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show what certificates and revocation lists say. Signatures are not checked here."""
    facts = [_describe(path) for path in files]
    show(facts, as_json=as_json, text="\n\n".join(_lines(item) for item in facts))


def _describe(path: Path) -> dict[str, str]:
    fields = _read_json(path)
    if "certificate" in fields:
        certificate = Certificate.from_bytes(_decode(fields["certificate"], path))
        return {
            "file": str(path),
            "certificate": f"{certificate.kind.value} {certificate.name}",
            "serial": str(certificate.serial),
            "not_before": certificate.not_before.isoformat(),
            "not_after": certificate.not_after.isoformat(),
        }
    revocations = _read_list(path)
    serials = " ".join(map(str, revocations.serials))
    return {"file": str(path), "revocation_list": str(revocations.number), "serials": serials}


def _lines(facts: dict[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in facts.items())


class _Request(BaseModel):
    """What silos, workers and the server ask to be signed; see ``RequestFile`` and ``SpecSignerAnswer``."""

    format: Literal["trunkline/certificate-request/v1"]
    kind: CertificateKind
    name: Name
    public_key: Base64


def _read_request(path: Path) -> _Request:
    try:
        return _Request.model_validate(_read_json(path))
    except ValidationError as error:
        raise CommandError(f"{path} is no certificate request", exit_code=2) from error


def _read_list(path: Path) -> RevocationList:
    fields = _read_json(path)
    if not fields.get("revocation_list"):
        raise CommandError(f"{path} holds no revocation list", exit_code=2)
    return RevocationList.from_bytes(_decode(fields["revocation_list"], path))


def _read_json(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            fields = json.loads(file.read(_MAX_FILE_BYTES))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise CommandError(f"{path} is not in JSON", exit_code=2) from error
    if not isinstance(fields, dict):
        raise CommandError(f"{path} holds no JSON object", exit_code=2)
    return fields


def _decode(text: str, path: Path) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, TypeError) as error:
        raise CommandError(f"{path}: not in base 64", exit_code=2) from error


def _write(fields: dict[str, str], out: Path | None) -> None:
    text = json.dumps(fields) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        out.write_text(text)
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror or error}") from error
