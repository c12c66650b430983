"""Content against what names it: digests, hashes, sizes.

A body that was stored with something masked in it is not the one that was sent, so it proves nothing.
"""

from collections.abc import Iterator

import msgspec

from cellmeter_proxy.canonical import NOT_JSON, hash_of, parse
from cellmeter_proxy.encodings import StreamDecoder, decode
from cellmeter_proxy.log import Log, digest_of
from cellmeter_proxy.record import Artifact, Call
from cellmeter_proxy.wire.fields import text
from cellmeter_scoring.finding import Finding


def blob_findings(log: Log) -> Iterator[Finding]:
    """Every blob under the digest of its content, with the size that its row gives."""
    for digest, size in log.stored():
        try:
            content = log.blob(digest)
        except Exception as error:  # noqa: BLE001 - damaged bytes may break a decompressor in any way
            yield Finding(kind="digest", message=f"the content of a blob cannot be read: {error}", ids=[str(digest)])
            continue
        if digest_of(content) != digest:
            yield Finding(kind="digest", message="a blob is not the content that its digest names", ids=[str(digest)])
        if len(content) != size:
            message = f"a blob of {len(content)} bytes says that it has {size}"
            yield Finding(kind="digest", message=message, ids=[digest])


def call_findings(log: Log, call: Call) -> Iterator[Finding]:
    """The bodies of a call against what its row says of them. One that is not there is another check's to find."""
    request = _content(log, call.request_blob)
    if request is not None and (not call.redactions or call.request_blob == call.body_hash):
        yield from _request_findings(request, call)
    answer = _content(log, call.response_blob)
    if answer is not None and not call.redactions:
        yield from _answer_findings(answer, call)
    timeline = _content(log, call.timeline_blob)
    if timeline is not None:
        yield from _timeline_findings(timeline, call)


def _request_findings(body: bytes, call: Call) -> Iterator[Finding]:
    if call.body_hash != call.request_blob:
        yield _differs("body_hash", "request", call)
    if call.request_bytes not in {None, len(body)}:
        yield _truncated("request", call.request_bytes, len(body), [call.call_id])
    plain = decode(body, call.request_encoding)
    request = NOT_JSON if plain is None else parse(plain)
    if call.request_hash != hash_of(request):
        yield _differs("request_hash", "request", call)
    if isinstance(request, dict):
        if call.request_model != text(request.get("model")):
            yield _differs("request_model", "request", call)
        if call.stream is not (request.get("stream") is True):
            yield _differs("stream", "request", call)


def _answer_findings(body: bytes, call: Call) -> Iterator[Finding]:
    if call.response_bytes not in {None, len(body)}:
        yield _truncated("response", call.response_bytes, len(body), [call.call_id])
    if call.usage is not None:
        told = _unspaced(StreamDecoder(call.response_encoding).feed(body))
        if any(_unspaced(part) not in told for part in _parts(call.usage)):
            yield _differs("usage", "answer", call)


def _parts(usage: str) -> list[bytes]:
    """A verbatim usage object by itself, or those of an array, which come from two events."""
    try:
        return [bytes(one) for one in msgspec.json.decode(usage, type=list[msgspec.Raw])]
    except msgspec.MsgspecError:
        return [usage.encode("utf-8", "surrogatepass")]


def _unspaced(text_: bytes) -> bytes:
    """A text without white space, and without the names of the lines that an event's data may be spread over."""
    return text_.translate(None, b" \t\r\n").replace(b"data:", b"")


def _differs(column: str, body: str, call: Call) -> Finding:
    return Finding(kind="digest", message=f"{column} is not that of the stored {body}", ids=[call.call_id])


def artifact_findings(log: Log, artifact: Artifact) -> Iterator[Finding]:
    """The size of an artifact against its content."""
    size = _size(log, artifact.blob)
    if size not in {None, artifact.size}:
        yield _truncated(artifact.name, artifact.size, size, [artifact.cell_id])


def _timeline_findings(timeline: bytes, call: Call) -> Iterator[Finding]:
    try:
        chunks = msgspec.json.decode(timeline, type=list[tuple[float, int]])
    except msgspec.MsgspecError:
        yield Finding(kind="digest", message="a timeline is not a list of times and sizes", ids=[call.call_id])
        return
    arrived = sum(size for _, size in chunks)
    if call.response_bytes not in {None, arrived}:
        message = f"the timeline has {arrived} bytes, its row says {call.response_bytes}"
        yield Finding(kind="truncated body", message=message, ids=[call.call_id])
    times = [at for at, _ in chunks]
    if times != sorted(times):
        yield Finding(kind="impossible time", message="a chunk came before the one before it", ids=[call.call_id])


def _truncated(what: str, said: int | None, size: int | None, ids: list[str]) -> Finding:
    message = f"the stored {what} has {size} bytes, its row says {said}"
    return Finding(kind="truncated body", message=message, ids=ids)


def _content(log: Log, digest: str | None) -> bytes | None:
    if digest is None:
        return None
    try:
        return log.blob(digest)
    except Exception:  # noqa: BLE001 - a finding about the blob itself
        return None


def _size(log: Log, digest: str | None) -> int | None:
    return None if digest is None else log.blob_size(digest)
