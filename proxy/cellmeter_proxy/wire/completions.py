"""Legacy completions (https://platform.openai.com/docs/api-reference/completions): one shape, streamed and not."""

from cellmeter_proxy.sse import Event
from cellmeter_proxy.wire import chat
from cellmeter_proxy.wire.fields import as_object, objects

read_answer = chat.read_answer


class Stream(chat.ChoiceReader):
    """A streamed completion."""

    @staticmethod
    def carries_token(event: Event, value: object) -> bool:
        """Whether a frame brings text."""
        del event
        return any(choice.get("text") for choice in objects(as_object(value).get("choices")))
