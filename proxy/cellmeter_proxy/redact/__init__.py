"""Keeping credentials out of everything that is written: headers, query strings, bodies, streams."""

from cellmeter_proxy.redact.heads import credential, credentials, is_credential_header, redact_headers, redact_url
from cellmeter_proxy.redact.secrets import Redactor, Redactors, fingerprint, mask
from cellmeter_proxy.redact.streams import redact_frames, redact_stream

__all__ = [
    "Redactor",
    "Redactors",
    "credential",
    "credentials",
    "fingerprint",
    "is_credential_header",
    "mask",
    "redact_frames",
    "redact_headers",
    "redact_stream",
    "redact_url",
]
