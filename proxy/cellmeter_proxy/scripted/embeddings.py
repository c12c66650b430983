"""Embeddings: vectors that depend on nothing but the text.

Source: https://platform.openai.com/docs/api-reference/embeddings (``base64`` is little-endian float32).
"""

import base64
import hashlib
import struct

from msgspec.structs import replace

from cellmeter_proxy.record import Usage
from cellmeter_proxy.scripted.answer import encode
from cellmeter_proxy.scripted.asked import Asked
from cellmeter_proxy.scripted.count import tokens
from cellmeter_proxy.scripted.ledger import Served
from cellmeter_proxy.scripted.plan import Plan, plain


def embeddings(served: Served, asked: Asked) -> tuple[Served, Plan]:
    """The vectors of all inputs, and the ledger's row with what they cost."""
    vectors = [vector(message.text, asked.dimensions) for message in asked.messages]
    data = [
        {"object": "embedding", "index": i, "embedding": _base64(values) if asked.base64 else values}
        for i, values in enumerate(vectors)
    ]
    prompt = sum(tokens(message.text) for message in asked.messages)
    usage = {"prompt_tokens": prompt, "total_tokens": prompt}
    body = encode({"object": "list", "data": data, "model": asked.model, "usage": usage})
    return replace(served, billed=Usage(prompt_tokens=prompt), reported=True), plain(body)


def vector(text: str, dimensions: int) -> list[float]:
    """Numbers between -1 and 1 out of the text's SHAKE-256, each exact in a float32."""
    digest = hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(dimensions)
    return [(byte - 128) / 128 for byte in digest]


def _base64(values: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
