"""The gateway's own TLS, for where no proxy ends it."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from backend.gateway import Gateway, Role
from splitlearn.errors import LinkError, StorageError
from splitlearn.link import connect_gateway, connect_websocket
from tests.unit.gateway.conftest import frame, gateway_settings, run, silo_ticket, worker_ticket


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A self-signed certificate of 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(tz=UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = {"tls_certificate_file": tmp_path / "chain.pem", "tls_key_file": tmp_path / "key.pem"}
    paths["tls_certificate_file"].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths["tls_key_file"].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


class TestTls:
    def test_relays_for_those_who_trust_its_certificate(self, files: dict[str, Path]) -> None:
        async def test() -> None:
            trust = ssl.create_default_context(cafile=str(files["tls_certificate_file"]))
            async with Gateway(gateway_settings(**files)) as gateway:
                assert gateway.url.startswith("wss://")
                silo, worker = await asyncio.gather(
                    connect_gateway(gateway.url, ticket=silo_ticket(), ssl_context=trust),
                    connect_gateway(gateway.url, ticket=worker_ticket(), ssl_context=trust),
                )
                await silo.send(frame(Role.SILO, bytes(1 << 20)))
                assert await worker.receive() == frame(Role.SILO, bytes(1 << 20))
                with pytest.raises(LinkError, match="certificate"):
                    await connect_gateway(gateway.url, ticket=silo_ticket())  # by the system's trust
                with pytest.raises(LinkError, match="certificate"):
                    await connect_websocket(gateway.url)
                await silo.close()
                await worker.close()

        run(test())

    def test_files_that_are_none_are_named(self, files: dict[str, Path]) -> None:
        files["tls_key_file"].write_text("no key")
        with pytest.raises(StorageError, match=r"key\.pem"):
            run(Gateway(gateway_settings(**files)).__aenter__())

    def test_needs_both_files(self, files: dict[str, Path]) -> None:
        del files["tls_key_file"]
        with pytest.raises(ValidationError, match="both, or neither"):
            gateway_settings(**files)
