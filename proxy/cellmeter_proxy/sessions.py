"""What the newest call of a session is, and which histories the session has sent: asked once, then remembered.

Invariant: what is answered is what the log says as this transaction sees it. What is remembered counts only within a
transaction that was begun by ``Log.begin``, which has the rows read that others have written since; whoever rolls one
back has it forgotten. It is bounded: of sessions that are not remembered, or not wholly, the log is asked.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import msgspec

from cellmeter_proxy.record import Call

MAX_LINKS: Final = 1 << 16
"""So many links are remembered of all sessions together; one takes a quarter of a kilobyte."""
_MOST_MISSED: Final = 1024
"""Where others have written more rows, sessions are asked for again instead."""
_FIND: Final = """
    WITH stretch (number) AS (
        SELECT (?2 >> 8) + 1 UNION ALL SELECT (
            SELECT coalesce(seq, 0) >> 8 FROM calls
            WHERE session = ?1 AND coalesce(seq, 0) >> 8 < number AND prefix_hash IS NOT NULL
            ORDER BY coalesce(seq, 0) >> 8 DESC LIMIT 1
        ) FROM stretch WHERE number IS NOT NULL
    )
    SELECT value, (
        SELECT newest FROM (
            SELECT (
                SELECT rowid FROM calls WHERE session = ?1 AND coalesce(seq, 0) >> 8 = number
                    AND substr(prefix_hash, -6) = substr(value, -6) AND prefix_hash IS NOT NULL AND +prefix_hash = value
                ORDER BY rowid DESC LIMIT 1
            ) AS newest FROM stretch
        ) WHERE newest IS NOT NULL LIMIT 1
    ) AS found FROM json_each(?3) WHERE found IS NOT NULL"""
"""The links that calls of a session ended in, and the newest of these calls: one look into the index for each link and
each 256 calls of the session, as a history that is resent a thousand times has a thousand rows. Where the numbers of a
damaged log leave a gap, it is passed over.
"""


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
        self._row: int | None = None
        """Calls up to this one are known of; None where nothing is remembered."""
        self.trusted = False
        """What is remembered counts."""

    def catch_up(self) -> None:
        """Take note of the calls that others have written."""
        (newest,) = self._conn.execute("SELECT coalesce(max(rowid), 0) FROM calls").fetchone()
        if self._row is None or not self._row <= newest <= self._row + _MOST_MISSED:
            self.forget()
        else:
            missed = "SELECT session, seq, prefix_hash, request_blob FROM calls WHERE rowid > ? ORDER BY rowid"
            for session, seq, link, blob in self._conn.execute(missed, (self._row,)):
                self._add(session, seq, link, blob)
        self._row = newest

    def forget(self, session: str | None = None) -> None:
        """Forget what is remembered, of one session or of all."""
        if session is None:
            self._row = None
        for name in [*self._known] if session is None else [session]:
            known = self._known.pop(name, None)
            self._size -= 0 if known is None else len(known.links)

    def seq(self, session: str) -> int:
        """The number of the last call; 0 where there is none."""
        return self._find(session).seq

    def note(self, call: Call, row: int | None) -> None:
        """A call was written as this row, the last one of its session."""
        if self.trusted and self._row is not None:
            self._row = row
            self._add(call.session, call.seq, call.prefix_hash, call.request_blob)
        else:
            self.forget(call.session)

    def _add(self, session: str, seq: int | None, link: str | None, blob: str | None) -> None:
        known = self._known.get(session)
        if known is None:
            return
        if seq is None or seq <= known.seq:
            self.forget(session)
            return
        known.seq, known.newest = seq, blob
        if link is not None:
            self._size += link not in known.links
            known.links[link] = blob
            known.links.move_to_end(link)
        while self._size > MAX_LINKS:
            self._forget_oldest()

    def known_prefixes(self, session: str, links: Sequence[str]) -> set[str]:
        """Those of the links of a prefix chain that an earlier call of the session ended in."""
        known = self._find(session)
        if known.is_whole:
            return {link for link in links if link in known.links}
        return {link for link, _ in self._ended_in(session, known.seq, links)}

    def base_of(self, session: str, link: str | None) -> str | None:
        """Digest of the body that a request is likely to go on from: the newest of its session that ended in a link.

        Where none did, or there is no link, that of the newest call.
        """
        known = self._find(session)
        found = None
        if link is not None:
            found = known.links.get(link)
            if link not in known.links and not known.is_whole:
                for _, row in self._ended_in(session, known.seq, [link]):
                    (found,) = self._conn.execute("SELECT request_blob FROM calls WHERE rowid = ?", (row,)).fetchone()
        return known.newest if found is None else found

    def _ended_in(self, session: str, seq: int, links: Sequence[str]) -> list[tuple[str, int]]:
        """Those of the links that calls of a session ended in, with the row of the newest of these calls."""
        return self._conn.execute(_FIND, (session, seq, msgspec.json.encode(links).decode())).fetchall()

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
