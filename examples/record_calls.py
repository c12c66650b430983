"""Record the calls of a program of yours from within it, then read them back.

    python examples/record_calls.py http://127.0.0.1:8000/v1 calls.db

Here the program is one request made with the standard library; any OpenAI client does, pointed at ``running.url``.
"""

import asyncio
import json
import sys
import urllib.request
from pathlib import Path

from cellmeter_proxy.server import ProxyConfig, serve
from cellmeter_scoring import audit


def ask(url: str) -> None:
    """One chat completion."""
    body = json.dumps({"model": "any", "messages": [{"role": "user", "content": "hello"}]}).encode()
    request = urllib.request.Request(f"{url}/s/example/v1/chat/completions", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request).read()


async def main(upstream: str, log: str) -> None:
    """Run the proxy around the program, then print what was recorded."""
    async with serve(ProxyConfig(upstream=upstream, log=Path(log))) as running:
        await asyncio.to_thread(ask, running.url)
    for call in audit(log, session="example").calls:
        print(call.seq, call.outcome, call.prompt_tokens, call.completion_tokens, call.usage_source)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
