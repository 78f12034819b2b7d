"""Who the monitor is to Kafka's brokers, as aiokafka's clients take it. Needs the extra ``kafka``.

The server has the like in a module of its own: the two share nothing but the events' shape.
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
from aiokafka.helpers import create_ssl_context

from monitor.errors import SettingsError
from monitor.settings import KafkaSettings

REQUEST_MS = 5000
"""How long one request may take; aiokafka itself would wait 40 s for a broker that is gone."""

TOKEN_S = 5.0
"""How long the giver of tokens may take."""

_LIFE = 0.8
"""The part of a token's life after which another is asked for."""


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """Returns what every client is told of the brokers: where they are and how they are spoken to.

    Raises:
        SettingsError: a file of a secret or of TLS cannot be read.
    """
    protocol = settings.security_protocol
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "request_timeout_ms": REQUEST_MS,
        "security_protocol": protocol,
    }
    if protocol.endswith("SSL"):
        options["ssl_context"] = _tls(settings)
    if protocol.startswith("SASL") and settings.sasl_mechanism == "OAUTHBEARER":
        options["sasl_mechanism"] = settings.sasl_mechanism
        options["sasl_oauth_token_provider"] = ClientCredentials(settings)
    elif protocol.startswith("SASL"):
        assert settings.password_file is not None  # the settings have seen to it
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.username,
            "sasl_plain_password": _secret("password_file", settings.password_file),
        }
    return options


class _Token(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: float = 300.0


_decoder = msgspec.json.Decoder(_Token)


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka ships no types
    """Gets tokens by OAuth 2's client credentials (RFC 6749, section 4.4), and keeps one for most of its life."""

    def __init__(self, settings: KafkaSettings) -> None:
        """settings: with a token_url, client_id and client_secret_file.

        Raises:
            SettingsError: the secret's file cannot be read, or the authorities' cannot be used.
        """
        assert settings.client_secret_file is not None  # the settings have seen to it
        _secret("client_secret_file", settings.client_secret_file)
        self._settings = settings
        self._tls = _tls_of_giver(settings)
        self._asking = asyncio.Lock()
        self._token = ""
        self._until_s = 0.0

    async def token(self) -> str:
        """Returns a token that is good for a while.

        Raises:
            KafkaConnectionError: there is none to be had at present.
        """
        async with self._asking:  # clients open several connections at once
            if time.monotonic() >= self._until_s:
                asked_s = time.monotonic()
                found = await asyncio.to_thread(self._ask)
                self._token, self._until_s = found.access_token, asked_s + _LIFE * found.expires_in
            return self._token

    def _ask(self) -> _Token:
        settings = self._settings
        assert settings.token_url is not None  # the settings have seen to both
        assert settings.client_secret_file is not None
        form = {"grant_type": "client_credentials", "client_id": settings.client_id}
        if settings.token_scope is not None:
            form["scope"] = settings.token_scope
        try:
            form["client_secret"] = _secret("client_secret_file", settings.client_secret_file)
            # Its kind is one of the two that the settings let pass.
            request = Request(settings.token_url, urlencode(form).encode(), {"Accept": "application/json"})
            with urlopen(request, timeout=TOKEN_S, context=self._tls) as reply:
                return _decoder.decode(reply.read())
        except SettingsError as error:  # it was there at the start, and may be there again
            raise KafkaConnectionError(str(error)) from error
        except (URLError, OSError) as error:
            if isinstance(error, HTTPError):  # it has the status, and the connection as well
                error.close()
            reason = getattr(error, "reason", error)
            raise KafkaConnectionError(f"{settings.token_url}: expected a token, got: {reason}") from error
        except msgspec.DecodeError:  # what came is not told: it may hold a secret
            raise KafkaConnectionError(f"{settings.token_url}: expected a JSON token, got another document") from None


def _tls(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context: ssl.SSLContext = create_ssl_context(
            cafile=settings.ca, certfile=settings.certificate, keyfile=settings.key
        )
        return context
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"monitor.kafka: the files of TLS ({settings.ca}, {settings.certificate}, {settings.key}) "
            f"cannot be used: {error}"
        ) from error


def _tls_of_giver(settings: KafkaSettings) -> ssl.SSLContext:
    """Trusts the brokers' authorities beside the system's: whoever gives tokens may be of either."""
    context = ssl.create_default_context()
    if settings.ca is not None:
        try:
            context.load_verify_locations(settings.ca)
        except OSError as error:  # ssl.SSLError is one
            raise SettingsError(f"monitor.kafka.ca: {settings.ca} cannot be used: {error}") from error
    return context


def _secret(setting: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"monitor.kafka.{setting}: {path} cannot be read: {error}") from error
