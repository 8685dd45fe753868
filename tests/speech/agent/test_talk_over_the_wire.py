"""Talks through a real server: a client that sends a microphone and plays what comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loquent.speech.agent.chat_client import ChatServer
from loquent.speech.net.client import ClientStream, ProtocolError, connect
from loquent.speech.runtime.events import Event, Final, Interrupted, Speech, Unanswered

RATE = 16_000
LONG = "The weather is going to be warm and dry for the whole of this week, with a little wind on Saturday."


class Client:
    """Sends audio no faster than it is processed, as a microphone does."""

    def __init__(self, stream: ClientStream) -> None:
        self.stream, self.sent, self.ended = stream, 0, False
        self.events: list[Event] = []
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for event in self.stream:
            self.events.append(event)

    async def say(self, audio: np.ndarray) -> None:
        for at in range(0, len(audio), 512):
            await self.stream.send(audio[at : at + 512])
            self.sent += len(audio[at : at + 512])
            while self.stream.acknowledged < self.sent - RATE // 2:
                await asyncio.sleep(0.002)

    async def silence_until(self, kind: type[Event]) -> Any:
        while not (found := [event for event in self.events if isinstance(event, kind)]):
            await self.say(np.zeros(512, np.float32))
        return found[-1]

    async def end(self) -> None:
        self.ended = True
        await self.stream.end()

    async def finish(self) -> list[Event]:
        if not self.ended:
            await self.end()
        await self.reading
        return self.events


@pytest.fixture
def serving(start_server, agent_with, chat_server) -> str:
    agent = agent_with(ChatServer(chat_server.url, "m"), capacity=2)
    return f"ws://127.0.0.1:{start_server(engines={'talk': agent}).port}"


def conversation(url: str, act: Callable[[Client], Any], **options: Any) -> list[Event]:
    async def main() -> list[Event]:
        async with connect(url, sample_rate=RATE, encoding="float32", acknowledge=True, **options) as stream:
            assert stream.ready["gives"]["kind"] == "audio"
            client = Client(stream)
            await act(client)
            return await client.finish()

    return asyncio.run(asyncio.wait_for(main(), 60))


def texts(events: list[Event], stage: str) -> list[str]:
    return [event.text for event in events if isinstance(event, Final) and event.stage == stage]


def test_a_client_breaks_in_by_speaking(serving: str, chat_server, talking) -> None:
    chat_server.script = [LONG, "Fine."]

    async def act(client: Client) -> None:
        await client.say(talking("What will the weather be like?"))
        await client.silence_until(Speech)
        await client.say(talking(1.0, "Please tell me the time instead.", 1.0))

    events = conversation(serving, act, speculate=False)
    (stopped,) = [event for event in events if isinstance(event, Interrupted)]
    after = events[events.index(stopped) :]
    assert all(event.start >= stopped.heard for event in after if isinstance(event, Speech))
    assert texts(events, "reply") == ([stopped.text] if stopped.text else []) + ["Fine."]
    first, second = texts(events, "turn")
    assert [message["content"] for message in chat_server.asked[1]["messages"][1:]] == [first, stopped.text, second]
    assert LONG.startswith(stopped.text)
    assert 0 < len(stopped.text) < len(LONG)


def test_a_talk_whose_connection_is_lost_says_the_rest_over_the_next_one(serving: str, chat_server, talking) -> None:
    chat_server.script = [LONG]

    async def act(client: Client) -> None:
        await client.say(talking("What will the weather be like?"))
        await client.silence_until(Speech)
        await client.say(np.zeros(RATE, np.float32))
        client.stream._websocket.transport.abort()
        await client.silence_until(Interrupted)
        await client.say(talking(1.0))

    events = conversation(serving, act, resumable=True)
    (stopped,) = [event for event in events if isinstance(event, Interrupted)]
    assert len(stopped.text) < len(LONG)
    assert texts(events, "reply") == ([stopped.text] if stopped.text else []) + [LONG]


def test_a_client_says_what_it_has_played(serving: str, chat_server, talking) -> None:
    chat_server.script = [LONG]

    async def act(client: Client) -> None:
        await client.say(talking("What will the weather be like?"))
        speech = await client.silence_until(Speech)
        await client.say(np.zeros(RATE, np.float32))
        await client.stream.interrupt(played_s=speech.start + 0.01)
        await client.silence_until(Interrupted)

    events = conversation(serving, act)
    (stopped,) = [event for event in events if isinstance(event, Interrupted)]
    assert stopped.text == ""
    assert texts(events, "reply") == []


def test_a_chat_server_that_is_down_costs_no_connection(start_server, agent_with, talking) -> None:
    agent = agent_with(ChatServer("http://127.0.0.1:9/v1", "m"))
    url = f"ws://127.0.0.1:{start_server(engines={'talk': agent}).port}"

    async def act(client: Client) -> None:
        await client.say(talking("What time is it?"))
        failed = await client.silence_until(Unanswered)
        assert failed.code == "chat_unreachable"
        await client.say(talking("Are you there?"))

    events = conversation(url, act)
    assert len(texts(events, "turn")) == 2
    assert len([event for event in events if isinstance(event, Unanswered)]) == 2


def test_a_client_that_leaves_ends_the_request(serving: str, chat_server, talking) -> None:
    chat_server.script = [chat_server.hold("Well, ")]

    async def main() -> None:
        async with connect(serving, sample_rate=RATE, encoding="float32", acknowledge=True) as stream:
            client = Client(stream)
            await client.say(talking("What time is it?", 1.5))
            while not chat_server.asked:
                await asyncio.sleep(0.01)
            client.reading.cancel()

    asyncio.run(main())
    assert chat_server.hung_up.wait(10)


@pytest.mark.parametrize("text", ["Well, ", LONG * 20])
def test_a_client_that_wants_no_answer_any_more(serving: str, chat_server, talking, text: str) -> None:
    """It has ended its audio already, and stops the reply to it: that is the end."""
    chat_server.script = [chat_server.hold(text)]

    async def act(client: Client) -> None:
        await client.say(talking("What time is it?"))
        await client.end()
        while not texts(client.events, "turn"):
            await asyncio.sleep(0.01)
        await client.stream.interrupt(played_s=0.0)

    events = conversation(serving, act)
    assert texts(events, "reply") == []
    assert len([event for event in events if isinstance(event, Interrupted)]) == 1


def test_options_of_clients(serving: str) -> None:
    async def nothing(client: Client) -> None:
        pass

    assert conversation(serving, nothing, half_duplex=True, speed=1.1) == []
    for wrong in ({"patient": True}, {"chat": "http://169.254.169.254/"}, {"instructions": "Obey."}, {"pause_s": 9.0}):
        with pytest.raises(ProtocolError) as refused:
            conversation(serving, nothing, **wrong)
        assert refused.value.code == "bad_options"
