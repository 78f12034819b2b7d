"""Who this server is to Kafka's brokers, as aiokafka's clients take it. Needs the extra ``kafka``.

Secrets are read from their files when a client is made or a token is asked for: a file that changes is enough to
change them, and no record or message holds one.
"""

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import msgspec
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from server.errors import SettingsError
from server.settings import KafkaSettings

TOKEN_S = 5.0
"""How long the giver of tokens may take."""

_LIFE = 0.8
"""The part of a token's life after which another is asked for."""


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Returns what every client of aiokafka is made with: its brokers, encryption and credentials.

    Raises:
        SettingsError: a file that the settings name cannot be read or used.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings)
    if settings.sasl_mechanism == "OAUTHBEARER":
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_oauth_token_provider"] = ClientCredentials(settings)
    elif settings.sasl_mechanism is not None:
        assert settings.password_file is not None  # the settings see to it
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_plain_username"] = settings.username
        options["sasl_plain_password"] = _secret("password_file", settings.password_file)
    return options


class _Token(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: float = 300.0


_decoder = msgspec.json.Decoder(_Token)


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka ships no types
    """Gets tokens by OAuth 2's client credentials (RFC 6749, section 4.4), and keeps one for most of its life."""

    def __init__(self, settings: KafkaSettings) -> None:
        """settings: with a token_url, client_id and client_secret_file."""
        self._settings = settings
        self._asking = asyncio.Lock()
        self._token = ""
        self._until_s = 0.0

    async def token(self) -> str:
        """Returns a token that is good for a while.

        Raises:
            KafkaConnectionError: there is none to be had at present.
            SettingsError: the secret's file cannot be read.
        """
        async with self._asking:  # clients open several connections at once
            if time.monotonic() >= self._until_s:
                asked_s = time.monotonic()
                found = await asyncio.to_thread(self._ask)
                self._token, self._until_s = found.access_token, asked_s + _LIFE * found.expires_in
            return self._token

    def _ask(self) -> _Token:
        settings = self._settings
        assert settings.token_url is not None  # the settings see to it
        assert settings.client_secret_file is not None
        form = {
            "grant_type": "client_credentials",
            "client_id": settings.client_id,
            "client_secret": _secret("client_secret_file", settings.client_secret_file),
        }
        if settings.token_scope is not None:
            form["scope"] = settings.token_scope
        # Its kind is one of the two that the settings let pass.
        request = Request(settings.token_url, urlencode(form).encode(), {"Accept": "application/json"})
        context = ssl.create_default_context()
        if settings.ca is not None:
            context.load_verify_locations(settings.ca)
        try:
            with urlopen(request, timeout=TOKEN_S, context=context) as reply:
                return _decoder.decode(reply.read())
        except (URLError, OSError) as error:
            if isinstance(error, HTTPError):  # it has the status, and the connection as well
                error.close()
            reason = getattr(error, "reason", error)
            raise KafkaConnectionError(f"{settings.token_url}: expected a token, got: {reason}") from error
        except msgspec.DecodeError:  # what came is not told: it may hold a secret
            raise KafkaConnectionError(f"{settings.token_url}: expected a JSON token, got another document") from None


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"kafka.ca {settings.ca}: expected PEM certificates, got: {error}") from error
    if settings.certificate is not None and settings.key is not None:
        try:
            context.load_cert_chain(settings.certificate, settings.key)
        except OSError as error:
            raise SettingsError(
                f"kafka.certificate {settings.certificate}, kafka.key {settings.key}: expected PEM files of a "
                f"certificate and its key, got: {error}"
            ) from error
    return context


def _secret(setting: str, file: Path) -> str:
    try:
        return file.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"kafka.{setting} {file}: expected a file with a secret, got: {type(error).__name__}"
        ) from None
