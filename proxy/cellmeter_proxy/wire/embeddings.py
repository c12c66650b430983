"""Embeddings (https://platform.openai.com/docs/api-reference/embeddings): input is counted, there is no output."""

from cellmeter_proxy.record import Usage
from cellmeter_proxy.wire.facts import AnswerFacts
from cellmeter_proxy.wire.failures import answer_error
from cellmeter_proxy.wire.fields import load_answer, text, verbatim
from cellmeter_proxy.wire.usage import openai_usage, source_of


def read_answer(body: bytes) -> AnswerFacts:
    """The facts of one JSON answer."""
    answer = load_answer(body)
    reported = openai_usage(answer.get("usage"))
    usage = None if reported is None else reported.usage
    return AnswerFacts(
        response_model=text(answer.get("model")),
        response_id=text(answer.get("id")),
        usage=usage or Usage(),
        usage_source=source_of(usage, final=True, needs_completion=False),
        usage_json=verbatim(body, "usage") if reported else None,
        provider_cost=reported.cost if reported else None,
        error=answer_error(answer),
        complete=bool(answer),
    )
