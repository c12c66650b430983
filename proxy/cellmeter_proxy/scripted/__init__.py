"""The scripted provider: an OpenAI-compatible provider that answers from a script, deterministically.

It needs no key and no network, bills by a documented rule, misbehaves on request, and keeps a
ledger of what it served, against which a recorder can be checked call for call.
"""

from cellmeter_proxy.scripted.asked import Asked, Message
from cellmeter_proxy.scripted.desk import RateLimit
from cellmeter_proxy.scripted.ledger import Served
from cellmeter_proxy.scripted.provider import ScriptedProvider
from cellmeter_proxy.scripted.script import Fault, Match, Script, ToolCall, Turn

__all__ = [
    "Asked",
    "Fault",
    "Match",
    "Message",
    "RateLimit",
    "Script",
    "ScriptedProvider",
    "Served",
    "ToolCall",
    "Turn",
]
