"""Whether a key's limits hold for all its models together or for each of them, by what answers say. No I/O.

Providers do the one or the other, and their headers do not say which. Models for which different ceilings are stated
have limits of their own, as OpenAI's do (https://platform.openai.com/docs/guides/rate-limits). So have two of which one
is told that more requests are left than the other one's last report allows, filled up since as its reset says.

Invariant: nothing but a report that one limit cannot give sets models apart. Until then, and for ever where a provider
states nothing, all of them share: that leaves something of the limits unused, where the opposite would exceed them.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from cellmeter_proxy.ratelimit import Limit

_REQUESTS: Final = "requests"
_MAX_MODELS: Final = 100
_SLACK: Final = 1


class Report(NamedTuple):
    """What an answer to a call of one model said, and when."""

    limits: Mapping[str, Limit]
    at: float
    """Seconds."""


class Models:
    """The models of one key."""

    def __init__(self) -> None:
        self.apart = False
        """Each has limits of its own."""
        self._reports: dict[str | None, Report] = {}

    def last(self, model: str | None) -> Report | None:
        """The last report on a model."""
        return self._reports.get(model)

    def note(self, model: str | None, limits: Mapping[str, Limit], under_way: int, now: float) -> bool:
        """Take a report in.

        Args:
            model: that the call asked for.
            limits: of the answer's headers.
            under_way: calls of the key that the provider may have counted in another order than it answered them.
            now: seconds.

        Returns:
            Whether it has just been seen that the models are apart.

        """
        new = Report(limits, now)
        others = [report for other, report in self._reports.items() if other != model]
        if model in self._reports or len(self._reports) < _MAX_MODELS:
            self._reports[model] = new
        if self.apart or not any(_differ(report, new, under_way) for report in others):
            return False
        self.apart = True
        return True


def _differ(old: Report, new: Report, under_way: int) -> bool:
    """Whether two reports cannot be of one limit."""
    stated = [(old.limits[what].limit, new.limits[what].limit) for what in old.limits.keys() & new.limits.keys()]
    if any(before is not None and after is not None and before != after for before, after in stated):
        return True
    before, after = old.limits.get(_REQUESTS), new.limits.get(_REQUESTS)
    if before is None or after is None or after.remaining is None:
        return False
    most = _most_left(before, new.at - old.at)
    return most is not None and after.remaining > most + under_way + _SLACK


def _most_left(limit: Limit, passed_s: float) -> float | None:
    """What a limit can have left some time after a report; None where the report does not tell.

    A reset is the time after which all is free again, be it little by little or at once at its end.
    """
    if limit.limit is None or limit.remaining is None or not limit.reset_ms:
        return None
    share = min(passed_s * 1000 / limit.reset_ms, 1.0)
    return limit.remaining + (limit.limit - limit.remaining) * share
