"""Decides how a request is answered: key, rate limit, models, then the scripts.

No sockets and no clock of its own; what it remembers are counts of what has arrived.
"""

import math
from collections import Counter, deque
from collections.abc import Sequence

from msgspec.structs import replace

from cellmeter_proxy.record import Record
from cellmeter_proxy.scripted import refusal
from cellmeter_proxy.scripted.answer import CREATED, Answer, encode
from cellmeter_proxy.scripted.asked import Asked, read
from cellmeter_proxy.scripted.count import bill, prompt_tokens
from cellmeter_proxy.scripted.embeddings import embeddings
from cellmeter_proxy.scripted.ledger import Served
from cellmeter_proxy.scripted.plan import WRITERS, Plan, plain, struck, whole
from cellmeter_proxy.scripted.script import Script, choose

Headers = tuple[tuple[str, str], ...]


class RateLimit(Record, frozen=True, kw_only=True):
    """So many requests in any window; the rest are answered 429 with a Retry-After in whole seconds."""

    requests: int
    window_s: float = 60.0


class Desk:
    """Everything of the provider but its sockets."""

    def __init__(
        self, scripts: Sequence[Script], *, key: str | None, limit: RateLimit | None, models: Sequence[str]
    ) -> None:
        self._scripts = tuple(scripts)
        self._key = key
        self._limit = limit
        named = (script.match.model for script in scripts)
        self._models = tuple(dict.fromkeys([*models, *(model for model in named if model)]))
        self._arrivals: deque[float] = deque()
        self._bodies: Counter[bytes] = Counter()
        self._answered: Counter[str] = Counter()

    def decide(self, served: Served, *, now: float) -> tuple[Served, Plan]:
        """What to send, and the ledger's row for it. ``now`` is any clock that only goes forward, in seconds."""
        if plan := self._without_model(served):
            plan = replace(plan, frames=()) if served.method == "HEAD" else plan
            return _ledger(served, plan), plan
        limits, plan = self._limited(served, now)
        if plan is None:
            served, plan = self._modelled(served)
        plan = replace(plan, headers=(*plan.headers, *limits))
        return _ledger(served, plan), plan

    def _without_model(self, served: Served) -> Plan | None:
        """Answers that no model makes."""
        if served.path == "/" and served.method in {"GET", "HEAD"}:
            return plain(encode({"object": "provider", "scripts": [script.name for script in self._scripts]}))
        if (served.header("upgrade") or "").lower() == "websocket":
            return _refusal(served, 426, "This provider speaks HTTP only", headers=(("Upgrade", "HTTP/1.1"),))
        if self._key is not None and self._key not in _keys(served):
            return _refusal(served, 401, code="invalid_api_key")
        if served.dialect == "models":
            return self._models_page(served)
        if served.dialect == "unknown":
            return _refusal(served, 404, f"No such path: {served.path}", code="unknown_url")
        return _refusal(served, 405, f"{served.path} takes POST only") if served.method != "POST" else None

    def _models_page(self, served: Served) -> Plan:
        """https://platform.openai.com/docs/api-reference/models."""
        cards = {
            name: {"id": name, "object": "model", "created": CREATED, "owned_by": "scripted"} for name in self._models
        }
        name = served.path.removeprefix("/v1/models").strip("/")
        if not name:
            return plain(encode({"object": "list", "data": list(cards.values())}))
        if name not in cards:
            return _refusal(served, 404, f"The model `{name}` does not exist", code="model_not_found")
        return plain(encode(cards[name]))

    def _limited(self, served: Served, now: float) -> tuple[Headers, Plan | None]:
        """The rate-limit headers, and the refusal if the limit is reached; refused requests do not count."""
        if self._limit is None:
            return (), None
        while self._arrivals and self._arrivals[0] <= now - self._limit.window_s:
            self._arrivals.popleft()
        full = len(self._arrivals) >= self._limit.requests
        if not full:
            self._arrivals.append(now)
        reset = self._arrivals[0] + self._limit.window_s - now
        headers = (
            ("x-ratelimit-limit-requests", str(self._limit.requests)),
            ("x-ratelimit-remaining-requests", str(self._limit.requests - len(self._arrivals))),
            ("x-ratelimit-reset-requests", f"{reset:.3f}s"),
        )
        if not full:
            return headers, None
        retry_after = ("Retry-After", str(math.ceil(reset)))
        return headers, _refusal(served, 429, code="rate_limit_exceeded", headers=(retry_after,))

    def _modelled(self, served: Served) -> tuple[Served, Plan]:
        try:
            asked = read(served.dialect, served.body)
        except ValueError as error:
            return served, _refusal(served, 400, f"We could not parse the body of your request: {error}")
        served = replace(served, model=asked.model, stream=asked.stream)
        if asked.dialect == "count_tokens":
            return served, plain(encode({"input_tokens": prompt_tokens(asked)}))
        if asked.dialect == "embeddings":
            return embeddings(served, asked)
        script = choose(self._scripts, asked)
        if script is None:
            return served, _refusal(served, 404, "No script answers this request", code="model_not_found")
        return self._scripted(served, asked, script)

    def _scripted(self, served: Served, asked: Asked, script: Script) -> tuple[Served, Plan]:
        number = script.turn_number(asked, self._answered[script.name])
        turn = script.turns[number]
        seen = self._bodies[served.body]
        self._bodies[served.body] += 1
        answer = Answer(n=served.n, turn_number=number, asked=asked, turn=turn, usage=bill(asked, turn))
        served = replace(served, script=script.name, turn=number)
        if turn.fault is not None and turn.fault.strikes(seen, served.retry_number):
            plan = struck(answer, turn.fault)
        else:
            plan = whole(answer)
        if plan.outcome == "refused":
            return served, plan
        self._answered[script.name] += 1
        writer = WRITERS[asked.dialect]
        return replace(
            served,
            finish_reason=turn.finish,
            billed=answer.usage,
            reported=writer.reports_usage(answer),
            response_id=answer.response_id(writer.RESPONSE_ID),
        ), plan


def _ledger(served: Served, plan: Plan) -> Served:
    return replace(served, status=plan.status, outcome=plan.outcome)


def _refusal(
    served: Served, status: int, message: str | None = None, *, code: str | None = None, headers: Headers = ()
) -> Plan:
    return plain(refusal.body(served.dialect, status, message=message, code=code), status=status, headers=headers)


def _keys(served: Served) -> set[str]:
    bearer = (served.header("authorization") or "").removeprefix("Bearer ").strip()
    return {bearer, served.header("x-api-key") or ""}
