"""Talks: turns, replies that are prepared, breaking in, and a history of what was heard."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loquent.speech.agent.agent import Agent
from loquent.speech.agent.chat_client import ChatServer
from loquent.speech.agent.options import TalkOptions
from loquent.speech.agent.replying import LEAD_S
from loquent.speech.agent.saved import SavedReplying, SavedTalk
from loquent.speech.agent.talk import Talk
from loquent.speech.runtime.events import Activity, Event, Final, Interrupted, Partial, Speech, Unanswered
from loquent.speech.runtime.stream import StreamClosed
from loquent.tts import Synthesizer

RATE = 16_000
LONG = "The weather is going to be warm and dry for the whole of this week, with a little wind on Saturday."

Talking = Callable[..., np.ndarray]
AgentWith = Callable[..., Agent]


class Observed:
    """A chat model that notes when it is asked."""

    def __init__(self, chat: Any) -> None:
        self.chat = chat
        self.talk: Talk | None = None
        self.times: list[float] = []

    def ask(self, messages: Any, notify: Any) -> Any:
        assert self.talk is not None
        self.times.append(self.talk.clock_s)
        return self.chat.ask(messages, notify)


def talk_through(talk: Talk, audio: np.ndarray, packet: int = 512) -> list[Event]:
    events = []
    for at in range(0, len(audio), packet):
        events += talk.push(audio[at : at + packet])
    return events + talk.finish()


def finals(events: list[Event], stage: str) -> list[str]:
    return [event.text for event in events if isinstance(event, Final) and event.stage == stage]


def comparable(events: list[Event]) -> list[Any]:
    samples = [event.samples.tobytes() for event in events if isinstance(event, Speech)]
    return [[{**event.to_dict(), "stream": ""} for event in events], samples]


def told(asked: Any) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in asked["messages"]]


def test_a_turn_ends_once_and_is_answered(chat_server, agent_with: AgentWith, talking: Talking, sentence) -> None:
    chat_server.script = ["That is **good** to know."]
    chat = Observed(ChatServer(chat_server.url, "m"))
    talk = chat.talk = agent_with(chat).open(sample_rate=RATE, patient=True)
    events = talk_through(talk, talking(sentence, 3.0))
    (turn,) = finals(events, "turn")
    assert turn == "streaming recognition writes each word down while you are still speaking."
    assert finals(events, "reply") == ["That is **good** to know."]
    assert told(chat_server.asked[-1])[0] == ("system", "Be brief.")
    assert told(chat_server.asked[-1])[1][0] == "user"
    stopped = [event.time for event in events if isinstance(event, Activity) and not event.speaking][-1]
    speech = [event for event in events if isinstance(event, Speech)]
    # The recogniser closes the utterance half a second after speech, in steps of 300 ms.
    assert 0.5 <= speech[0].start - stopped <= 0.9
    for before, after in itertools.pairwise(speech):
        assert after.start == pytest.approx(before.end)
        assert after.start <= after.emission_time + LEAD_S  # not long before it is to be heard
    assert talk.done
    assert talk.conversation.messages()[1:] == [
        {"role": "user", "content": turn},
        {"role": "assistant", "content": "That is **good** to know."},
    ]


def test_packets_of_any_size_give_the_same_talk(chat_server, agent_with: AgentWith, talking: Talking) -> None:
    chat_server.script = [LONG]
    audio = talking("What time is it?", 2.0, "Please tell me the time.", 1.5)
    talks = []
    for packet in (512, 4001):
        talk = agent_with(ChatServer(chat_server.url, "m")).open(sample_rate=RATE, patient=True)
        talks.append((comparable(talk_through(talk, audio, packet)), talk.conversation.messages()))
    assert any(event["type"] == "interrupted" for event in talks[0][0][0])
    assert talks[0] == talks[1]
    talk = agent_with(ChatServer(chat_server.url, "m")).open(sample_rate=RATE, patient=True)
    talk.feed(audio)
    talk.end()
    assert comparable(talk.run()) == talks[0][0]


def test_an_unfinished_sentence_is_waited_for(chat_server, agent_with: AgentWith, talking: Talking) -> None:
    audio = talking("I would like to order a pizza, and", 1.2, "Tomatoes, please.", 2.5)
    chat = Observed(ChatServer(chat_server.url, "m"))
    talk = chat.talk = agent_with(chat).open(sample_rate=RATE, patient=True)
    events = talk_through(talk, audio)
    (turn,) = finals(events, "turn")
    assert re.fullmatch(r"I would like to order (a )?pizza,? and\.* Tomatoes,? please\.", turn)
    assert finals(events, "reply") == ["Fine."]


def test_a_reply_is_prepared_before_the_turn_is_over(chat_server, agent_with: AgentWith, talking: Talking) -> None:
    chat = Observed(ChatServer(chat_server.url, "m"))
    talk = chat.talk = agent_with(chat).open(sample_rate=RATE, patient=True)
    events = talk_through(talk, talking("What time is it?", 2.0))
    (turn,) = [event for event in events if isinstance(event, Final) and event.stage == "turn"]
    assert len(chat_server.asked) == 1  # the prepared reply is the one that is heard
    assert chat.times[0] < turn.emission_time
    assert finals(events, "reply") == ["Fine."]


def test_without_speculation_nothing_is_asked_before(chat_server, agent_with: AgentWith, talking: Talking) -> None:
    chat = Observed(ChatServer(chat_server.url, "m"))
    talk = chat.talk = agent_with(chat).open(sample_rate=RATE, patient=True, speculate=False)
    events = talk_through(talk, talking("What time is it?", 2.0))
    assert chat.times == [event.emission_time for event in events if event.stage == "turn"]


def test_a_prepared_reply_is_dropped_when_the_user_goes_on(
    chat_server, agent_with: AgentWith, talking: Talking
) -> None:
    chat_server.script = [chat_server.hold("Secret. ", "More of it. "), "Fine."]
    chat = Observed(ChatServer(chat_server.url, "m"))
    talk = chat.talk = agent_with(chat).open(sample_rate=RATE, patient=True)
    audio = talking("Tell me about the weather.", 0.05, "But only for tomorrow.", 2.0)
    events = talk_through(talk, audio)
    assert chat_server.hung_up.wait(10)
    assert len(chat_server.asked) >= 2
    (turn,) = finals(events, "turn")
    assert "tomorrow" in turn
    assert finals(events, "reply") == ["Fine."]
    assert not [event for event in events if "Secret" in str(event.to_dict())]
    assert "tomorrow" in told(chat_server.asked[-1])[-1][1]


def test_breaking_in_stops_the_agent_and_the_model_is_told_what_was_heard(
    chat_server, agent_with: AgentWith, talking: Talking
) -> None:
    chat_server.script = [LONG, "Fine."]
    talk = agent_with(ChatServer(chat_server.url, "m")).open(sample_rate=RATE, patient=True, speculate=False)
    audio = talking("What will the weather be like?", 3.0, "Wait, stop. Tell me the time instead.", 2.5)
    events = talk_through(talk, audio)
    at = next(i for i, event in enumerate(events) if isinstance(event, Interrupted))
    stopped = events[at]
    onset = next(e for e in events[:at][::-1] if isinstance(e, Activity) and e.speaking)
    assert stopped.emission_time - onset.time <= 0.2
    assert stopped.heard == stopped.emission_time
    given = [event for event in events[:at] if isinstance(event, Speech)]
    assert stopped.heard < given[-1].end  # it was cut short
    # By the voice alone: the words that end before as many seconds of the same speech.
    begin = given[0].start
    words = [w for s in Synthesizer(talk._speak.engine.task).synthesize(LONG).segments for w in s.words]
    heard = "".join(word.text for word in words if word.end <= stopped.heard - begin + 1e-6).strip()
    assert heard
    assert heard != LONG
    assert stopped.text == heard
    assert told(chat_server.asked[1])[1:] == [
        ("user", finals(events, "turn")[0]),
        ("assistant", heard),
        ("user", finals(events, "turn")[1]),
    ]
    assert finals(events, "reply") == [heard, "Fine."]
    assert all(event.start >= stopped.heard for event in events[at:] if isinstance(event, Speech))


def test_somebody_who_only_agrees_does_not_end_a_reply(chat_server, agent_with: AgentWith, talking: Talking) -> None:
    chat_server.script = [LONG]
    talk = agent_with(ChatServer(chat_server.url, "m")).open(sample_rate=RATE, patient=True)
    events = talk_through(talk, talking("What will the weather be like?", 3.0, "Yeah, okay.", 6.5))
    assert len(chat_server.asked) == 1
    assert finals(events, "reply")[-1] == LONG
    assert talk.conversation.messages()[-1] == {"role": "assistant", "content": LONG}
    assert len(talk.conversation.messages()) == 3
    spoken = "".join(event.text for event in events if event.type == "word" and event.stage == "speak")
    assert spoken.split()[-1] == "Saturday."


def test_a_noise_does_not_end_a_reply(
    chat_server, agent_with: AgentWith, talking: Talking, sentence, scripted_ear
) -> None:
    """The recogniser makes no word of it: after two seconds the reply goes on."""
    chat_server.script = [LONG]
    ear = scripted_ear((1.8, "What will the weather be like?"))
    talk = agent_with(ChatServer(chat_server.url, "m"), ear=ear).open(sample_rate=RATE, patient=True)
    syllable = sentence[RATE : RATE + 3200]
    events = talk_through(talk, talking(sentence[: RATE + 4800], 2.5, syllable, 8.0))
    (stopped,) = [event for event in events if isinstance(event, Interrupted)]
    assert finals(events, "reply") == [stopped.text, LONG]
    goes_on = next(event for event in events[events.index(stopped) :] if isinstance(event, Speech))
    assert 2.0 <= goes_on.start - stopped.heard < 2.5
    assert len(chat_server.asked) == 1


def test_a_noise_while_the_model_thinks_costs_no_reply(
    chat_server, agent_with: AgentWith, talking: Talking, sentence, scripted_ear
) -> None:
    chat_server.script = [chat_server.hold(), "Fine."]
    ear = scripted_ear((1.8, "What time is it?"))
    talk = agent_with(ChatServer(chat_server.url, "m"), ear=ear).open(sample_rate=RATE)
    events = talk.push(talking(sentence[: RATE + 4800], 1.5)) + talk.push(talking(sentence[RATE : RATE + 3200], 3.0))
    assert chat_server.hung_up.wait(10)
    events += talk.finish()
    assert chat_server.asked[0] == chat_server.asked[1]
    assert finals(events, "reply") == ["Fine."]


def test_half_duplex_does_not_listen_while_it_speaks(chat_server, agent_with: AgentWith, talking: Talking) -> None:
    chat_server.script = [LONG]
    talk = agent_with(ChatServer(chat_server.url, "m")).open(sample_rate=RATE, patient=True, half_duplex=True)
    events = talk_through(talk, talking("What will the weather be like?", 2.5, "Tell me the time instead.", 4.0))
    assert not [event for event in events if isinstance(event, Interrupted)]
    assert len(finals(events, "turn")) == 1
    assert finals(events, "reply") == [LONG]


def test_a_player_knows_better_what_was_heard(chat_server, agent_with: AgentWith, talking: Talking) -> None:
    chat_server.script = [LONG, "Fine."]
    talk = agent_with(ChatServer(chat_server.url, "m")).open(sample_rate=RATE, patient=True)
    events: list[Event] = []
    for packet in np.array_split(talking("What will the weather be like?", 3.0), 100):
        events += talk.push(packet)
    speech = [event for event in events if isinstance(event, Speech)]
    *_, first = talk.interrupt()
    assert isinstance(first, Interrupted)
    assert first.heard == pytest.approx(talk.clock_s)
    *_, second = talk.interrupt(played_s=speech[0].start + 1.0)
    assert isinstance(second, Interrupted)
    assert second.text
    assert first.text.startswith(second.text)
    assert len(second.text) < len(first.text)
    assert talk.conversation.messages()[-1] == {"role": "assistant", "content": second.text}
    talk.interrupt(played_s=0.0)
    assert talk.conversation.messages()[-1]["role"] == "user"
    with pytest.raises(ValueError, match="number of seconds"):
        talk.interrupt(played_s=-1)
    talk.close()
    assert talk.done


def test_a_chat_server_that_fails_is_told_and_the_talk_goes_on(
    chat_server, agent_with: AgentWith, talking: Talking
) -> None:
    chat_server.script = [lambda handler: handler.send_error(500, "out of order"), "Fine."]
    talk = agent_with(ChatServer(chat_server.url, "m")).open(sample_rate=RATE, patient=True, speculate=False)
    events = talk_through(talk, talking("What time is it?", 1.5, "Hello, are you there?", 2.0))
    (failed,) = [event for event in events if isinstance(event, Unanswered)]
    assert (failed.code, failed.stage) == ("chat_refused", "reply")
    assert "status 500" in failed.message
    assert finals(events, "reply") == ["Fine."]
    assert told(chat_server.asked[1])[1:] == [("user", " ".join(finals(events, "turn")))]


def test_a_reply_that_breaks_off_is_spoken_as_far_as_it_came(
    chat_server, agent_with: AgentWith, talking: Talking
) -> None:
    def breaks_off(handler: Any) -> None:
        chat_server.begin(handler)
        handler.wfile.write(b'data: {"choices": [{"delta": {"content": "It is noon, and"}}]}\n\n')

    chat_server.script = [breaks_off]
    talk = agent_with(ChatServer(chat_server.url, "m")).open(sample_rate=RATE, patient=True)
    events = talk_through(talk, talking("What time is it?", 2.5))
    (failed,) = [event for event in events if isinstance(event, Unanswered)]
    assert failed.code == "chat_broken"
    assert finals(events, "reply") == ["It is noon, and"]


def test_the_end_of_the_audio_ends_the_turn_and_waits_for_the_reply(
    chat_server, agent_with: AgentWith, talking: Talking
) -> None:
    talk = agent_with(ChatServer(chat_server.url, "m")).open(sample_rate=RATE)
    events = talk_through(talk, talking("What time is it?"))
    assert finals(events, "turn") == ["What time is it?"]
    assert finals(events, "reply") == ["Fine."]
    assert [event for event in events if isinstance(event, Speech)]
    assert talk.done
    with pytest.raises(StreamClosed):
        talk.push(np.zeros(10, np.float32))


def test_live_audio_does_not_wait_for_a_slow_reply(chat_server, agent_with: AgentWith, talking: Talking) -> None:
    chat_server.script = [chat_server.hold(), "Fine."]
    talk = agent_with(ChatServer(chat_server.url, "m")).open(sample_rate=RATE, speculate=False)
    events = talk.push(talking("What time is it?", 1.5))
    assert finals(events, "turn") == ["What time is it?"]
    events = talk.push(talking("Hello, are you there?", 1.5))  # the first request is given up, its turn is not lost
    assert chat_server.hung_up.wait(10)
    events += talk.finish()
    assert finals(events, "reply") == ["Fine."]
    assert told(chat_server.asked[1])[1:] == [("user", "What time is it? Hello, are you there?")]


def test_closing_hangs_up(chat_server, agent_with: AgentWith, talking: Talking) -> None:
    chat_server.script = [chat_server.hold("Well")]
    talk = agent_with(ChatServer(chat_server.url, "m")).open(sample_rate=RATE)
    talk.push(talking("What time is it?", 1.5))
    talk.close()
    assert chat_server.hung_up.wait(10)
    assert talk.done


def test_a_talk_is_a_value_between_its_replies(
    chat_server, agent_with: AgentWith, talking: Talking, sentence, scripted_ear
) -> None:
    """Saved wherever no reply is under way, and restored, it goes on alike."""
    chat_server.script = ["It is going to be warm and dry."]
    ear = scripted_ear((1.8, "What will the weather be like?"), (3.6, "Yeah."), (7.2, "And"), (8.7, "tomorrow?"))
    syllable = sentence[RATE : RATE + 3200]
    first, second = sentence[: RATE + 4800], sentence[RATE // 2 : RATE]
    audio = talking(first, 1.2, syllable, 3.6, second, 1.0, second, 1.0)
    packets = np.array_split(audio, 60)

    def agent() -> Agent:
        return agent_with(ChatServer(chat_server.url, "m"), ear=ear)

    whole, one = agent().open(sample_rate=RATE, patient=True, stream="s"), agent()
    expected = [comparable(whole.push(packet)) for packet in packets] + [comparable(whole.finish())]
    talk, got, saved = one.open(sample_rate=RATE, patient=True, stream="s"), [], 0
    for packet in packets:
        try:
            snapshot = talk.snapshot()
        except StreamClosed:  # a reply is under way
            pass
        else:
            talk.close()
            talk, saved = one.restore(snapshot, patient=True), saved + 1
        got.append(comparable(talk.push(packet)))
    got.append(comparable(talk.finish()))
    assert got == expected
    assert 20 < saved < 55
    assert len([event for events, _ in got for event in events if event["type"] == "interrupted"]) == 1
    assert talk.conversation == whole.conversation
    assert len(chat_server.asked) == 4  # a turn each, of two talks


def test_damaged_snapshots_are_refused(chat_server, agent_with: AgentWith, scripted_ear) -> None:
    agent = agent_with(ChatServer(chat_server.url, "m"), ear=scripted_ear())
    talk = agent.open(sample_rate=RATE)
    snapshot = talk.snapshot()
    talk.close()
    with pytest.raises(ValueError, match="checksum"):
        agent.restore(snapshot[:-1] + bytes([snapshot[-1] ^ 1]))
    session = agent.notice.open()
    with pytest.raises(ValueError, match="part 'hear' is missing"):
        agent.restore(session.snapshot())
    session.close()
    with pytest.raises(ValueError, match="not the times and counts"):
        dataclasses.replace(SavedTalk("", (), TalkOptions(), {}, (), "", False, 0.0, 0, EMPTY), silent_since=-1.0)
    with pytest.raises(ValueError, match="not a reply of a talk"):
        dataclasses.replace(EMPTY, last=(0, "abc", 4))
    assert agent.hear.active == agent.notice.active == agent.speak.active == 0
    assert agent.restore(snapshot).finish() == []


EMPTY = SavedReplying(0.0, 0.0, 0.0, (), 0, 0, None, False)


def test_options(chat_server, agent_with: AgentWith) -> None:
    agent = agent_with(ChatServer(chat_server.url, "m"))
    with pytest.raises(ValueError, match="no stage has an option 'loudness'"):
        agent.open(loudness=3)
    with pytest.raises(ValueError, match="likely_s <= pause_s"):
        agent.open(likely_s=3.0)
    assert agent.hear.active == agent.notice.active == agent.speak.active == 0
    talk = agent.open(pause_s=0.7)
    talk.configure(pause_s=0.9, speed=1.2)
    assert talk.options.pause_s == 0.9
    assert talk._speak.options.speed == 1.2
    with pytest.raises(ValueError, match="fixed at the start"):
        talk.configure(voice="low" if "low" in talk._speak.engine.task.voice.speakers else "baritone")
    with pytest.raises(ValueError, match="audio cannot be flushed"):
        talk.flush()
    assert [event.type for event in talk.marker("here")] == ["marker"]
    assert not [event for event in talk.finish() if isinstance(event, Partial)]
