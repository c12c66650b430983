"""The line between two processes: what is told and asked arrives in order, and nobody waits for one who is gone."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cellmeter_proxy.link import Link, LinkLostError
from cellmeter_proxy.messages import (
    Chunks,
    Found,
    Joined,
    Leave,
    Message,
    Objection,
    ReadOn,
    Ready,
    Scrape,
    Seek,
    Settle,
    TakeOn,
)
from cellmeter_proxy.record import Call


class End:
    """One end of a line, and what it has heard."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.heard: list[Message] = []
        self.news = asyncio.Event()
        self.held = asyncio.Event()

    def hear(self, message: Message) -> None:
        self.heard.append(message)
        self.news.set()

    async def answer(self, message: Message) -> Message:
        match message:
            case TakeOn():
                return Objection(reason=f"{message.call_id} of {message.session}")
            case ReadOn():
                await self.held.wait()
                return Chunks(chunks=[b"\x00\xff" * message.position])
            case Seek():
                return Joined(same=True)
            case _:
                raise LinkLostError("nobody knows")


@asynccontextmanager
async def line() -> AsyncIterator[tuple[End, End]]:
    ends = [End(await Link.open(sock)) for sock in socket.socketpair()]
    running = [asyncio.create_task(end.link.run(end.hear, end.answer)) for end in ends]
    yield ends[0], ends[1]
    for end in ends:
        await end.link.aclose()
    await asyncio.wait(running)


async def test_what_is_told_arrives_whole_and_in_order() -> None:
    call = Call(call_id="1", session="sé\x00", writer="w", started_at=7, usage='{"a":1}', prompt_tokens=3, stream=True)
    said: list[Message] = [Ready(), *(Leave(place=number) for number in range(1000)), Settle(call=call)]
    async with line() as (one, other):
        for message in said:
            one.link.tell(message)
        async with asyncio.timeout(5):
            while len(other.heard) < len(said):
                other.news.clear()
                await other.news.wait()
    assert other.heard == said


async def test_questions_of_both_ends_are_replied_to_and_one_that_is_held_up_holds_up_no_other() -> None:
    async with line() as (one, other):
        slow = asyncio.create_task(one.link.ask(ReadOn(call_id="1", position=100_000), Chunks))
        quick = await asyncio.gather(
            one.link.ask(TakeOn(call_id="a", session="s"), Objection),
            other.link.ask(TakeOn(call_id="b", session="s"), Objection),
        )
        assert [reply.reason for reply in quick] == ["a of s", "b of s"]
        assert not slow.done()
        other.held.set()
        assert (await slow).chunks == [b"\x00\xff" * 100_000]


async def test_whoever_waits_for_one_that_is_gone_is_told_so_and_so_is_whoever_asks_then() -> None:
    async with line() as (one, other):
        waiting = asyncio.create_task(one.link.ask(ReadOn(call_id="1", position=0), Chunks))
        await asyncio.sleep(0)
        await other.link.aclose()
        with pytest.raises(LinkLostError, match="is gone"):
            await waiting
        with pytest.raises(LinkLostError, match="is gone"):
            await one.link.ask(Scrape(), Found)
        assert one.link.lost
        one.link.tell(Ready())


async def test_a_question_that_cannot_be_replied_to_fails_with_the_reason() -> None:
    async with line() as (one, _):
        with pytest.raises(LinkLostError, match="nobody knows"):
            await one.link.ask(Scrape(), Found)
        with pytest.raises(LinkLostError, match="replied with Joined"):
            await one.link.ask(Seek(session="s", endpoint="/"), Found)


async def test_who_no_longer_wants_a_reply_is_not_troubled_by_it() -> None:
    async with line() as (one, other):
        waiting = asyncio.create_task(one.link.ask(ReadOn(call_id="1", position=1), Chunks))
        await asyncio.sleep(0.01)
        waiting.cancel()
        other.held.set()
        reply = await one.link.ask(TakeOn(call_id="a", session="s"), Objection)
        assert reply.reason == "a of s"
