"""A conversation by voice as a stream: audio in; what was heard, replies as text, and their speech out.

It is composed of three sessions, a recogniser ("hear"), voice activity ("notice") and a voice ("speak"), and a chat
model. The sessions tell it about every step. All of its time is that of the audio that came in; only the text of the
chat model comes when it comes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from loquent.speech.agent.conversation import Conversation
from loquent.speech.agent.options import TalkOptions
from loquent.speech.agent.reply import Chat, Reply
from loquent.speech.agent.replying import SPEAK, Replying
from loquent.speech.agent.saved import SavedTalk, captured
from loquent.speech.agent.turn_end import is_back_channel, looks_unfinished, words_of
from loquent.speech.runtime.events import Activity, Event, Failure, Final, Partial
from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.pipeline import shared_out
from loquent.speech.runtime.session import Session
from loquent.speech.runtime.stream import Stream, StreamClosed

HEAR, NOTICE, TURN = "hear", "notice", "turn"  # stages, besides those of `Replying`
MOST_GUESSES = 3  # replies that are prepared in one turn
MOST_UTTERANCES = 50  # of a turn that are kept

_names = itertools.count(1)


class Talk(Stream):
    """A stream that takes audio and gives the events of five stages.

    - "hear": `Partial`, `Word`, `Final`, `Endpoint` of the recogniser. "notice": `Activity`.
    - "turn": a `Final` for every turn of the user, once it is over.
    - "reply": `Partial` while the text of a reply comes; `Final` with what was heard of it once it is over; or
      `Unanswered`.
    - "speak": `Speech`, a little before it is to be heard, and the other events of the voice; `Interrupted` when the
      user breaks in. Their times are those of the conversation: there is silence between.

    Packets of any size give the same, for the same replies, in `push` and `finish`.

    Args:
        hear, notice, speak: sessions; the first two take the same audio.
        chat: the model.
        conversation: so far.
        options: how turns are taken.
        patient: whether the audio waits for the text of replies, as that of a recording can.
        stream: id of the events; numbered by default.
    """

    def __init__(
        self,
        hear: Session,
        notice: Session,
        speak: Session,
        chat: Chat,
        conversation: Conversation,
        options: TalkOptions | None = None,
        *,
        patient: bool = False,
        stream: str | None = None,
    ) -> None:
        self.stream = stream or f"talk-{next(_names)}"
        self.conversation, self.options, self.patient = conversation, options or TalkOptions(), patient
        self.takes, self.gives, self.inbox = hear.takes, speak.gives, hear.inbox
        self._hear, self._notice, self._speak, self._chat = hear, notice, speak, chat
        for name, session in ((HEAR, hear), (NOTICE, notice), (SPEAK, speak)):
            session.stage, session.stream, session.observer = name, self.stream, self._on_step
        self._news: Callable[[], None] = lambda: None
        self._outbox: list[Event] = []
        self._sequences = Counter[str]()
        self._replying = Replying(speak, conversation, self._tell, lambda: self.clock_s, patient)
        # Of the user's turn: utterances, what may become one, whether somebody speaks, and a reply that is prepared.
        self._utterances: deque[Final] = deque(maxlen=MOST_UTTERANCES)
        self._open = ""
        self._speaking = False
        self._silent_since = 0.0
        self._guess: tuple[list[str], Reply] | None = None
        self._guesses = 0
        self._suspended = False  # whether no more replies begin

    # ------------------------------------------------------------------------------------------------- as of any stream

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The recogniser's, voice activity, the voice's."""
        return self._hear, self._notice, self._speak

    @property
    def done(self) -> bool:
        """See `Stream.done`."""
        return all(session.done for session in self.sessions) and self._replying.empty

    @property
    def waiting_markers(self) -> int:
        """Markers that the recogniser has not reached."""
        return self._hear.waiting_markers

    @property
    def clock_s(self) -> float:
        """Seconds of the conversation so far."""
        return self._notice.inbox.clock

    @property
    def _heard_all(self) -> bool:
        """Whether the audio has ended, and all of it has been processed."""
        return self._hear.done and self._notice.done

    def on_news(self, call: Callable[[], None]) -> None:
        """See `Stream.on_news`."""
        self._news = call

    def run(self) -> list[Event]:
        """See `Stream.run`. Once the input has ended this waits for replies."""
        while True:
            self._pump()
            ready = [session for session in (self._hear, self._notice) if session.ready]
            coming = self._replying.awaited
            if self._speak.ready:
                self._speak.engine.step()
            elif coming is not None and (self.patient or self._heard_all):
                coming.wait()
            elif ready:
                min(ready, key=_step_end).engine.step()
            else:
                return self.drain()

    def feed(self, packet: Any) -> None:
        """See `Stream.feed`."""
        self._hear.feed(packet)
        self._notice.feed(packet)

    def feed_flush(self) -> None:
        """Refuse: a talk takes audio."""
        self._hear.feed_flush()

    def end(self) -> None:
        """See `Stream.end`."""
        self._hear.end()
        self._notice.end()

    def drain(self) -> list[Event]:
        """See `Stream.drain`."""
        self._pump()
        events, self._outbox = self._outbox, []
        return events

    def marker(self, id: str) -> list[Event]:
        """Ask for a `Marker` once the recogniser has processed everything pushed so far."""
        self._hear.feed_marker(id)
        self._collect(self._hear)
        return self.drain()

    def configure(self, **options: Any) -> None:
        """See `Stream.configure`; each option goes to the talk, else to the first stage that has it."""
        own = {field.name: getattr(self.options, field.name) for field in dataclasses.fields(TalkOptions)}
        mine = {name: value for name, value in options.items() if name in own}
        stages = {HEAR: self._hear, SPEAK: self._speak}
        rest = shared_out(
            {name: one.engine for name, one in stages.items()}, {k: v for k, v in options.items() if k not in own}
        )
        changed = parse_options(TalkOptions, own | mine)
        for name, chosen in rest.items():
            if chosen:
                stages[name].configure(**chosen)
        self.options = changed

    def interrupt(self, played_s: float | None = None) -> list[Event]:
        """Stop the reply, or say how much of one that was stopped was really heard.

        Args:
            played_s: time of the conversation up to which speech was heard, in terms of `Speech.start` and `end`; by
                default now.
        """
        if played_s is not None and not 0 <= played_s < float("inf"):
            raise ValueError(f"played_s is a number of seconds from 0 on, got {played_s!r}")
        at = min(self.clock_s if played_s is None else played_s, self._replying.playback.end)
        if self._replying.answer is not None:
            self._replying.stop(at, unwanted=True)
        else:
            self._drop_guess()  # it was asked for with another history
            self._replying.correct(at)
        self._consider()  # there may be no step any more that would
        return self.drain()

    def suspend(self) -> None:
        """See `Stream.suspend`: the rest of a reply is said once the talk goes on, as after a noise."""
        if not self._heard_all:  # else the talk comes to its end by itself
            self._suspended = True
            self._replying.stop(self.clock_s)

    def capture(self) -> Callable[[], bytes]:
        """See `Stream.capture`. `Agent.restore` goes on with it; a reply that is prepared is asked for again.

        Raises:
            StreamClosed: a reply is under way, which nobody can save; or it has ended, or is in the middle of a step.
        """
        if self._replying.answer is not None or not self._replying.empty:
            raise StreamClosed("cannot take a snapshot of a talk while a reply is under way; take it after the reply")
        conversation = self.conversation
        saved = SavedTalk(
            conversation.instructions,
            tuple((turn["role"], turn["content"]) for turn in conversation.turns),
            self.options,
            dict(self._sequences),
            tuple((one.text, one.start, one.end) for one in self._utterances),
            self._open,
            self._speaking,
            self._silent_since,
            self._guesses,
            self._replying.saved(),
        )
        return captured(self.stream, {session.stage: session.capture() for session in self.sessions}, saved)

    def resume(self, saved: SavedTalk) -> None:
        """Take over what another talk was, before anything is fed."""
        self._sequences.update(saved.sequences)
        self._utterances.extend(Final(text=text, start=start, end=end) for text, start, end in saved.utterances)
        self._open, self._speaking, self._silent_since = saved.open, saved.speaking, saved.silent_since
        self._guesses = saved.guesses
        self._replying.resume(saved.replying)

    def close(self) -> None:
        """See `Stream.close`."""
        self._drop_guess()
        self._replying.close()
        self._utterances.clear()
        self._open = ""
        for session in self.sessions:
            session.observer = None
            session.close()

    # --------------------------------------------------------------------------------------------------- what was heard

    def _on_step(self, session: Session) -> None:
        """A session has made a step."""
        if session is not self._speak:
            self._collect(session)
        self._consider()
        self._pump()

    def _collect(self, session: Session) -> None:
        for event in session.drain():
            self._outbox.append(event)
            match event:
                case Failure():
                    self.close()
                case Partial(stable=stable, unstable=unstable):
                    self._open = stable + unstable
                case Final():
                    self._open = ""
                    if words_of(event.text) and not self._is_echo(event):
                        self._utterances.append(event)
                case Activity(speaking=True):
                    self._user_begins()
                case Activity(time=time):
                    self._speaking, self._silent_since = False, time

    def _is_echo(self, heard: Final) -> bool:
        """Whether an utterance lies within the agent's own speech, and is not to be listened to."""
        playback = self._replying.playback
        return self.options.half_duplex and heard.start < playback.end and heard.end > playback.begin

    def _user_begins(self) -> None:
        self._speaking = True
        self._drop_guess()
        if not (self.options.half_duplex and self._replying.playback.is_on(self.clock_s)):
            self._replying.stop(self.clock_s)

    # ------------------------------------------------------------------------------------------------ the end of a turn

    @property
    def _said(self) -> str:
        return " ".join(one.text.strip() for one in self._utterances)

    def _consider(self) -> None:
        """Whether the user's turn is over, or likely to be."""
        ended = self._heard_all
        if self._suspended or (self._speaking and not ended):
            return
        silence, said = self.clock_s - self._silent_since, self._said
        if said and not self._open.strip():
            if ended or silence >= self.options.needed_s(said):
                self._end_turn()
        elif self._open.strip():
            likely = silence >= self.options.likely_s and not ended
            if likely and self.options.speculate and self._replying.answer is None:
                self._prepare(f"{said} {self._open.strip()}".strip())
        elif self._replying.stopped is not None and (ended or silence >= self.options.unfinished_s):
            self._go_on()  # it was a noise
        if ended and self._replying.answer is None and not (self._speak.done or self._speak.inbox.ended):
            self._drop_guess()
            self._speak.end()

    def _prepare(self, text: str) -> None:
        """Ask for a reply to what may be the whole turn."""
        words = words_of(text)
        if self._guess is not None and self._guess[0] == words:
            return
        if self._hear.inbox.clock < self._silent_since or looks_unfinished(text) or not words:
            return  # the recogniser has not heard all of it, or it goes on
        if self._replying.stopped is not None and is_back_channel(text):
            return
        self._drop_guess()
        if self._guesses < MOST_GUESSES:
            self._guesses += 1
            self._guess = words, self._ask(text)

    def _end_turn(self) -> None:
        self._replying.stop(self.clock_s)
        if self._replying.answer is not None:
            return  # the voice is in the middle of a step; after it the turn ends
        said, (first, *_, last) = self._said, (self._utterances[0], *self._utterances)
        self._utterances.clear()
        self._tell(TURN, Final(text=said, start=first.start, end=last.end))
        goes_on = self._replying.stopped is not None and is_back_channel(said)
        if self._guess is not None and (goes_on or self._guess[0] != words_of(said)):
            self._drop_guess()
        guess, self._guess, self._guesses = self._guess, None, 0
        if goes_on:
            return self._go_on()
        self.conversation.hear(said)
        self._replying.begin(guess[1] if guess is not None else self._ask())

    def _ask(self, more: str = "") -> Reply:
        return self._chat.ask(self.conversation.messages(more), lambda: self._news())

    def _drop_guess(self) -> None:
        if self._guess is not None:
            self._guess[1].close()
            self._guess = None

    def _go_on(self) -> None:
        """Say the rest of what the user broke in on; if nothing was heard of it, ask again."""
        stopped = self._replying.stopped
        assert stopped is not None, "checked before"
        said, rest = stopped.text[: stopped.heard], stopped.text[stopped.heard :]
        self._replying.begin(None if said else self._ask(), said, rest if said else "")

    def _pump(self) -> None:
        if self._replying.pump(at_once=self._heard_all):
            self._consider()

    def _tell(self, stage: str, event: Event) -> None:
        stamps = {"stream": self.stream, "stage": stage, "sequence": self._sequences[stage]}
        self._sequences[stage] += 1
        self._outbox.append(replace(event, **stamps, emission_time=self.clock_s))  # type: ignore[arg-type]
        if isinstance(event, Failure):
            self.close()


def _step_end(session: Session) -> float:
    """Where in the audio the next step of a session ends, in seconds."""
    wanted = session.engine.task.wants(session.memo) or 0
    return session.inbox.clock + wanted / (session.takes.sample_rate or 1)
