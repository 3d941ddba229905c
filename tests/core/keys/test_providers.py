"""Each holder of a key-encryption key wraps and unwraps, and says what is wrong when it cannot."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from apps.connectors.errors import ConfigurationError
from apps.connectors.outbound import AllowedNetworks, routes
from apps.core.keys import KeyProviderRefused, KeyProviderUnreachable, providers
from apps.core.keys.aws_kms import AwsKms
from apps.core.keys.providers import KeyProvider, LocalKeys, parse_keys
from apps.core.keys.vault import VaultTransit
from tests.core.keys.vault_server import TOKEN, Vault, running_vault

KEY, CONTEXT = b"d" * 32, "lockstep data key 1 values"
OLD = "old:" + base64.b64encode(b"o" * 32).decode()
NEW = "new:" + base64.b64encode(b"n" * 32).decode()
REGION = "eu-central-1"


@pytest.fixture
def vault() -> Iterator[Vault]:
    with running_vault() as server:
        yield server


@pytest.fixture
def kms(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Makes keys in a KMS and gives their ids."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client = boto3.client("kms", region_name=REGION)
        yield lambda: client.create_key()["KeyMetadata"]["KeyId"]


@pytest.fixture(params=["local", "vault", "aws-kms"])
def provider(request: pytest.FixtureRequest) -> KeyProvider:
    if request.param == "local":
        return LocalKeys(NEW)
    if request.param == "vault":
        server: Vault = request.getfixturevalue("vault")
        return VaultTransit(server.address, "lockstep", token=TOKEN)
    return AwsKms(request.getfixturevalue("kms")(), region=REGION)


def test_a_key_that_was_wrapped_unwraps(provider: KeyProvider, request: pytest.FixtureRequest):
    wrapped, by = provider.wrap(KEY, CONTEXT)

    assert provider.unwrap(wrapped, CONTEXT, by) == KEY
    assert KEY not in wrapped
    assert by.startswith(f"{request.node.callspec.params['provider']}:")
    assert len(by) <= 255


def test_a_key_unwraps_for_its_own_context_only(provider: KeyProvider):
    wrapped, by = provider.wrap(KEY, CONTEXT)

    with pytest.raises(KeyProviderRefused):
        provider.unwrap(wrapped, "lockstep data key 2 values", by)


def test_a_wrapped_key_that_was_altered_does_not_unwrap(provider: KeyProvider):
    wrapped, by = provider.wrap(KEY, CONTEXT)
    altered = wrapped[:-2] + (b"AA" if wrapped[-2:] != b"AA" else b"BB")

    with pytest.raises((KeyProviderRefused, KeyProviderUnreachable)):
        provider.unwrap(altered, CONTEXT, by)


# Keys of a file or the environment


def test_the_first_local_key_wraps_and_all_unwrap():
    wrapped, by = LocalKeys(OLD).wrap(KEY, CONTEXT)
    both = LocalKeys(f"{NEW}\n{OLD}\n")

    assert both.unwrap(wrapped, CONTEXT, by) == KEY
    assert both.wrap(KEY, CONTEXT)[1] == "local:new"
    with pytest.raises(KeyProviderRefused, match="'old' is not there"):
        LocalKeys(NEW).unwrap(wrapped, CONTEXT, by)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "no-colon",
        ":" + base64.b64encode(bytes(32)).decode(),
        "k1:not base64",
        "k1:" + base64.b64encode(bytes(16)).decode(),
        "k1:" + base64.b64encode(bytes(33)).decode(),
        "x" * 200 + ":" + base64.b64encode(bytes(32)).decode(),
        f"{OLD}\nbroken",
        "é:" + base64.b64encode(bytes(32)).decode(),
        f"{OLD}\n{OLD.replace('b29v', 'b29w')}",
    ],
)
def test_keys_that_cannot_be_used_are_refused(text: str):
    with pytest.raises(ConfigurationError, match="encryption key"):
        parse_keys(text)


def test_an_error_about_a_key_does_not_show_it():
    with pytest.raises(ConfigurationError) as error:
        parse_keys("k1:c2VjcmV0LWtleQ==")

    assert "c2VjcmV0" not in str(error.value)
    assert error.value.where == "LOCKSTEP_ENCRYPTION_KEYS"


def test_keys_keep_their_order():
    assert list(parse_keys(f"{NEW} {OLD}")) == ["new", "old"]


# Vault


def test_what_an_older_version_of_the_key_in_vault_wrapped_unwraps(vault: Vault):
    transit = VaultTransit(vault.address, "lockstep", token=TOKEN)
    wrapped, by = transit.wrap(KEY, CONTEXT)
    vault.rotate()

    assert transit.unwrap(wrapped, CONTEXT, by) == KEY
    assert transit.wrap(KEY, CONTEXT)[0].startswith(b"vault:v2:")


def test_a_token_in_a_file_is_read_before_each_request(vault: Vault, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("expired\n")
    transit = VaultTransit(vault.address, "lockstep", token_file=token, namespace="team")
    with pytest.raises(KeyProviderRefused, match="permission denied"):
        transit.wrap(KEY, CONTEXT)
    token.write_text(f"{TOKEN}\n")

    transit.wrap(KEY, CONTEXT)

    assert vault.asked[-1][2]["X-Vault-Namespace"] == "team"


def test_a_sealed_vault_is_asked_again_and_an_unknown_key_is_refused(vault: Vault):
    with pytest.raises(KeyProviderRefused, match="encryption key not found"):
        VaultTransit(vault.address, "other", token=TOKEN).wrap(KEY, CONTEXT)
    vault.sealed = True
    with pytest.raises(KeyProviderUnreachable, match="Vault is sealed"):
        VaultTransit(vault.address, "lockstep", token=TOKEN).wrap(KEY, CONTEXT)


def test_a_vault_that_is_not_there_is_asked_again():
    transit = VaultTransit("http://127.0.0.1:65535", "lockstep", token=TOKEN)

    with pytest.raises(KeyProviderUnreachable) as error:
        transit.wrap(KEY, CONTEXT)
    assert TOKEN not in str(error.value)


# AWS KMS


def test_kms_refuses_an_unknown_key(kms: Callable[[], str]):
    with pytest.raises(KeyProviderRefused, match="NotFoundException"):
        AwsKms("alias/nothing", region=REGION).wrap(KEY, CONTEXT)


def test_a_kms_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    with pytest.raises(KeyProviderUnreachable, match="EndpointConnectionError"):
        AwsKms("alias/key", region=REGION, endpoint="http://127.0.0.1:65535").wrap(KEY, CONTEXT)


# Where they may be


def test_no_key_provider_is_asked_at_an_address_that_is_not_allowed(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setattr(routes, "_rules", routes._Rules(AllowedNetworks.parse(["public"]), set()))
    kms = AwsKms("alias/key", region=REGION, endpoint="http://127.0.0.1:65535")
    for asked in (VaultTransit(vault.address, "lockstep", token=TOKEN), kms):
        with pytest.raises(KeyProviderRefused, match=r"127\.0\.0\.1.* not allowed") as error:
            asked.wrap(KEY, CONTEXT)
        assert "LOCKSTEP_ALLOWED_NETWORKS" in error.value.remedy
    assert vault.asked == []


def test_kms_is_connected_to_by_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    answers = ["127.0.0.1", "169.254.169.254"]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: real(answers.pop(0), *rest, **more)
    )
    with listening(b'{"__type": "NotFoundException"}') as port:
        kms = AwsKms("alias/key", region=REGION, endpoint=f"http://kms.example:{port}")
        with pytest.raises(KeyProviderRefused, match="NotFoundException"):
            kms.wrap(KEY, CONTEXT)
    assert answers == ["169.254.169.254"]


@contextmanager
def listening(body: bytes) -> Iterator[int]:
    """A web server that answers once, with an error of KMS."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


# What the environment says


def test_a_provider_that_is_not_configured_says_so():
    with pytest.raises(KeyProviderRefused, match="no key provider 'vault'"):
        providers.provider("vault")
    with pytest.raises(KeyProviderRefused, match="no key provider 'kmip'"):
        providers.provider("kmip")
