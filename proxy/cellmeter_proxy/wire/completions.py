"""Legacy completions (https://platform.openai.com/docs/api-reference/completions): one shape, streamed and not."""

from cellmeter_proxy.sse import Event
from cellmeter_proxy.wire import chat
from cellmeter_proxy.wire.fields import load_object, objects

read_answer = chat.read_answer


class Stream(chat.ChoiceReader):
    """A streamed completion."""

    @staticmethod
    def carries_token(event: Event) -> bool:
        """Whether a frame brings text."""
        return any(choice.get("text") for choice in objects(load_object(event.data).get("choices")))
