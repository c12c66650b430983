"""Credentials in the head of a request or an answer: in headers and in the query."""

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_plus

from cellmeter_proxy.redact.secrets import Redactor, fingerprint

_CREDENTIAL_HEADERS: Final = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "api-key",
        "apikey",
        "cookie",
        "set-cookie",
        "helicone-auth",
        "ocp-apim-subscription-key",
        "x-functions-key",
        "x-bf-vk",
    }
)
_CREDENTIAL_ENDINGS: Final = ("-api-key", "-apikey", "-authorization", "-token", "-secret", "-password", "-signature")
_CREDENTIAL_PARAMETERS: Final = frozenset(
    {
        "key",
        "api_key",
        "apikey",
        "access_key",
        "access_token",
        "id_token",
        "refresh_token",
        "token",
        "auth",
        "authorization",
        "sig",
        "signature",
        "secret",
        "client_secret",
        "password",
        "passwd",
        "subscription_key",
        "x_amz_signature",
        "x_amz_credential",
        "x_amz_security_token",
        "x_goog_signature",
        "x_goog_credential",
    }
)
_PARAMETER: Final = re.compile(r"(?P<name>[^?&;#=]+)=(?P<value>[^&;#]*)")
_USERINFO: Final = re.compile(r"(?<=://)[^/?#@]*@")
_SCHEME: Final = re.compile(r"(?:bearer|basic|token|bot|apikey)\s+", re.IGNORECASE)


def credential(value: str) -> str:
    """The secret of an authorization header's value: what follows its scheme, if it names one."""
    value = value.strip()
    scheme = _SCHEME.match(value)
    return value if scheme is None else value[scheme.end() :]


@lru_cache(256)
def is_credential_header(name: str) -> bool:
    """Whether the value of a request or response header is a secret."""
    name = name.lower()
    return name in _CREDENTIAL_HEADERS or name.endswith(_CREDENTIAL_ENDINGS)


def credentials(headers: Iterable[tuple[str, str]], query: str) -> Iterator[str]:
    """Every secret that the head of a request carries, for a ``Redactor`` to look for elsewhere.

    Args:
        headers: as received.
        query: of the request's target, without its question mark.

    """
    for name, value in headers:
        if not is_credential_header(name):
            continue
        if name.lower() in {"cookie", "set-cookie"}:
            yield from (part.partition("=")[2].strip() for part in value.split(";"))
        else:
            yield credential(value)
    for match in _PARAMETER.finditer(query):
        if _is_credential_parameter(match):
            yield unquote_plus(match["value"])


def redact_headers(headers: Iterable[tuple[str, str]], salt: str, redactor: Redactor) -> list[tuple[str, str]]:
    """Headers as they may be stored: credentials by fingerprint, other secrets masked, order and case kept."""
    return [
        (name, fingerprint(credential(value), salt) if is_credential_header(name) else redactor.text(value)[0])
        for name, value in headers
    ]


def redact_url(url: str) -> str:
    """A URL, or a path with a query, with its credentials masked and all else as it was."""
    path, mark, query = _USERINFO.sub("***@", url).partition("?")
    return path + mark + _PARAMETER.sub(_mask_parameter, query)


def _mask_parameter(match: re.Match[str]) -> str:
    return f"{match['name']}=***" if _is_credential_parameter(match) else match[0]


def _is_credential_parameter(match: re.Match[str]) -> bool:
    name = unquote_plus(match["name"]).lower().replace("-", "_")
    return name in _CREDENTIAL_PARAMETERS and bool(match["value"])
