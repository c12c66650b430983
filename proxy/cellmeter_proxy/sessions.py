"""What the newest call of a session is, and which histories the session has sent: asked once, then remembered.

Invariant: what is answered is what the log says as this transaction sees it. What is remembered counts only within a
transaction that was begun by ``Log.begin``, where nobody else has written since; whoever rolls one back has it
forgotten. It is bounded: of sessions that are not remembered, or not wholly, the log is asked.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from cellmeter_proxy.record import Call

MAX_LINKS: Final = 1 << 16
"""So many links are remembered of all sessions together; one takes a quarter of a kilobyte."""


class _Session:
    """What is remembered of one."""

    def __init__(self, seq: int, newest: str | None) -> None:
        self.seq = seq
        self.newest = newest
        """The digest of the newest call's request."""
        self.links: OrderedDict[str, str | None] = OrderedDict()
        """Links that calls ended in, with the digest of the request of the newest one; those of it come last."""
        self.is_whole = False
        """No call ended in any other link."""


class Sessions:
    """The sessions of a log that is being written. It belongs to the thread of its connection."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._known: OrderedDict[str, _Session] = OrderedDict()
        self._size = 0
        self.trusted = False
        """What is remembered counts."""

    def forget(self, session: str | None = None) -> None:
        """Forget what is remembered, of one session or of all."""
        for name in [*self._known] if session is None else [session]:
            known = self._known.pop(name, None)
            self._size -= 0 if known is None else len(known.links)

    def seq(self, session: str) -> int:
        """The number of the last call; 0 where there is none."""
        return self._find(session).seq

    def note(self, call: Call) -> None:
        """A call was written, as the last one of its session."""
        known = self._known.get(call.session)
        if known is None:
            return
        if not self.trusted or call.seq is None:
            self.forget(call.session)
            return
        known.seq, known.newest = call.seq, call.request_blob
        if call.prefix_hash is not None:
            self._size += call.prefix_hash not in known.links
            known.links[call.prefix_hash] = call.request_blob
            known.links.move_to_end(call.prefix_hash)
        while self._size > MAX_LINKS:
            self._forget_oldest()

    def known_prefixes(self, session: str, links: Sequence[str]) -> set[str]:
        """Those of the links of a prefix chain that an earlier call of the session ended in."""
        known = self._find(session)
        if known.is_whole:
            return {link for link in links if link in known.links}
        # One look into the index for each link: a history that is resent a thousand times has a thousand rows to it.
        rows = self._conn.execute(
            "SELECT value FROM json_each(?) WHERE EXISTS"
            " (SELECT 1 FROM calls WHERE session = ? AND substr(prefix_hash, -12) = substr(value, -12)"
            " AND prefix_hash = value)",
            (msgspec.json.encode(links).decode(), session),
        )
        return {str(row[0]) for row in rows}

    def base_of(self, session: str, link: str | None) -> str | None:
        """Digest of the body that a request is likely to go on from: the newest of its session that ended in a link.

        Where none did, or there is no link, that of the newest call.
        """
        known = self._find(session)
        found = None
        if link is not None:
            found = known.links.get(link)
            if link not in known.links and not known.is_whole:
                row = self._conn.execute(
                    "SELECT request_blob FROM calls WHERE session = ?1 AND substr(prefix_hash, -12) = substr(?2, -12)"
                    " AND prefix_hash IS NOT NULL AND +prefix_hash = ?2 ORDER BY rowid DESC LIMIT 1",
                    (session, link),
                ).fetchone()
                found = None if row is None else row[0]
        return known.newest if found is None else found

    def _find(self, session: str) -> _Session:
        known = self._known.get(session) if self.trusted else None
        if known is None:
            row = self._conn.execute(
                "SELECT seq, request_blob FROM calls WHERE session = ? ORDER BY seq DESC LIMIT 1", (session,)
            ).fetchone()
            known = _Session(0, None) if row is None else _Session(row[0] or 0, row[1])
            known.is_whole = row is None
            if self.trusted:
                self._known[session] = known
        else:
            self._known.move_to_end(session)
        return known

    def _forget_oldest(self) -> None:
        oldest, known = next(iter(self._known.items()))
        if len(self._known) > 1:
            self.forget(oldest)
        else:
            known.links.popitem(last=False)
            known.is_whole = False
            self._size -= 1
