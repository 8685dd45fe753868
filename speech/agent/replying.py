"""What an agent says: a reply on its way from a chat model through the voice to whoever listens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from loquent.speech.agent.conversation import Conversation
from loquent.speech.agent.playback import Given, Playback
from loquent.speech.agent.reply import Reply
from loquent.speech.agent.saved import SavedReplying
from loquent.speech.runtime.events import (
    Event,
    Final,
    Interrupted,
    Marker,
    Partial,
    Speech,
    Unanswered,
    Word,
)
from loquent.speech.runtime.session import Session
from loquent.speech.text.words import Text

SPEAK, REPLY = "speak", "reply"  # stages
LEAD_S = 0.3  # of speech that is given out before it is to be heard


@dataclass
class Answer:
    """A reply under way.

    reply:  where its text comes from; None for the rest of one that was stopped.
    begin:  position in the voice's text at which its text begins.
    text:   so far.
    heard:  characters of it that are known to have been heard.
    whole:  whether all of its text has gone to the voice.
    spoken: whether the voice has said all of it.
    unwanted: whether it was stopped by whoever holds the stream: the rest is not to be said.
    """

    reply: Reply | None
    begin: int
    text: str = ""
    heard: int = 0
    whole: bool = False
    spoken: bool = False
    unwanted: bool = False


class Replying:
    """The speaking half of a talk.

    Args:
        voice: a session that speaks.
        conversation: is told what was heard.
        tell: takes a stage and an event of it.
        clock: seconds of the conversation so far.
        patient: whether text is taken when all of it has come.

    Attributes:
        answer: the reply under way.
        stopped: the one that the user has just broken in on.
        playback: where its speech is.
    """

    def __init__(
        self,
        voice: Session,
        conversation: Conversation,
        tell: Callable[[str, Event], None],
        clock: Callable[[], float],
        patient: bool,
    ) -> None:
        self.answer: Answer | None = None
        self.stopped: Answer | None = None
        self.playback = Playback()
        self._voice, self._conversation, self._tell, self._clock = voice, conversation, tell, clock
        self._patient = patient
        self._last: Answer | None = None
        self._stopping_at: float | None = None  # while the voice is in the middle of a step
        self._waiting: deque[Event] = deque()  # of the voice, to be given out
        self._fed = 0  # characters of the voice's text
        self._answers = 0

    @property
    def awaited(self) -> Reply | None:
        """What brings more text."""
        return self.answer.reply if self.answer is not None and not self.answer.whole else None

    @property
    def empty(self) -> bool:
        """Whether everything that the voice said has been given out."""
        return not self._waiting

    def begin(self, reply: Reply | None, said: str = "", rest: str = "") -> None:
        """Speak a reply, or the ``rest`` of one of which ``said`` was heard."""
        self.playback.start_anew()
        self._feed(" ")  # the words of two replies are never one word
        self.stopped = self._last = None
        self.answer = Answer(reply, self._fed - len(said), said, len(said))
        self._answers += 1
        if reply is None:
            self._add(self.answer, rest)
            self._finish_text(self.answer)

    def pump(self, at_once: bool) -> bool:
        """Hand on what has come: text to the voice, speech to whoever listens. Tells whether the reply is over now.

        Args:
            at_once: whether to give out all speech there is, as nothing more is heard.
        """
        reply = self.awaited
        if reply is not None and self.answer is not None and self._stopping_at is None:
            over = reply.over
            if over or not self._patient:
                self._add(self.answer, reply.take())
            if over:
                self._finish_text(self.answer)
        before = self.answer
        self._give(at_once)
        answer = self.answer
        if answer is None:
            return before is not None  # it was stopped
        if not answer.spoken or not (at_once or self._clock() >= self.playback.end):
            return False
        self._conclude(answer, len(answer.text), self.playback.end)
        return True

    def stop(self, at: float, unwanted: bool = False) -> None:
        """Stop the reply under way at a time of the conversation; if need be it is over after the voice's step.

        Args:
            unwanted: whether what was not heard is not to be said later.
        """
        if self.answer is None or self._stopping_at is not None:
            return
        self.answer.unwanted = unwanted
        if self.answer.reply is not None:
            self.answer.reply.close()
        self._stopping_at = at
        self._waiting = deque(self._voice.interrupt(self.playback.voice_time(at)))
        self._give(at_once=False)

    def correct(self, at: float) -> None:
        """Whoever plays the last reply tells that it was heard up to a time: less than it seemed, perhaps."""
        answer = self._last
        if answer is None:
            return self._tell(SPEAK, Interrupted(text="", span=(self._fed, self._fed), heard=at))
        if at < self.playback.end:
            heard = min(answer.heard, max(0, self.playback.text_end(at) - answer.begin))
            answer.heard = len(answer.text[:heard].rstrip())
            self._conversation.say(answer.text[: answer.heard])
        self._tell_stopped(answer, at)

    def close(self) -> None:
        """Drop everything."""
        if self.answer is not None and self.answer.reply is not None:
            self.answer.reply.close()
        self.answer = self.stopped = self._stopping_at = None
        self._waiting.clear()

    def saved(self) -> SavedReplying:
        """Everything, while no reply is under way."""
        playback, last = self.playback, self._last
        return SavedReplying(
            playback.begin,
            playback.end,
            playback.voice_end,
            tuple(playback.given),
            self._fed,
            self._answers,
            None if last is None else (last.begin, last.text, last.heard),
            self.stopped is not None,
        )

    def resume(self, saved: SavedReplying) -> None:
        """Inverse of `saved`."""
        self.playback = Playback(saved.begin, saved.end, saved.voice_end, [Given(*one) for one in saved.given])
        self._fed, self._answers = saved.fed, saved.answers
        if saved.last is not None:
            begin, text, heard = saved.last
            self._last = Answer(None, begin, text, heard, whole=True, spoken=True)
        self.stopped = self._last if saved.goes_on else None

    # ----------------------------------------------------------------------------------------------- text to the voice

    def _add(self, answer: Answer, piece: str) -> None:
        piece = piece if answer.text else piece.lstrip()
        if piece:
            answer.text += piece
            self._tell(REPLY, Partial(stable=answer.text, unstable=""))
            self._feed(piece)

    def _finish_text(self, answer: Answer) -> None:
        answer.whole = True
        error = answer.reply.error if answer.reply is not None else None
        if error is not None:
            self._tell(REPLY, Unanswered(code=error.code, message=str(error)))
        elif not answer.text.strip():
            self._tell(REPLY, Unanswered(code="chat_failed", message="the chat model's reply is empty"))
        self._voice.feed_flush()
        self._voice.feed_marker(str(self._answers))

    def _feed(self, text: str) -> None:
        self._voice.feed(Text(text, self._clock()))
        self._fed += len(text)

    # ------------------------------------------------------------------------------------------- speech to the listener

    def _give(self, at_once: bool) -> None:
        """Give out speech as it is needed, so that little of it has to be taken back."""
        while self._stopping_at is not None or at_once or self.playback.end < self._clock() + LEAD_S:
            if not self._waiting:
                self._waiting.extend(self._voice.drain())
            if not self._waiting:
                return
            self._take(self._waiting.popleft())

    def _take(self, event: Event) -> None:
        """Take up an event of the voice."""
        playback = self.playback
        match event:
            case Interrupted():
                self._was_stopped(event)
            case Speech() | Word() | Final() if self._stopping_at is not None:
                pass  # nobody is to hear it
            case Speech():
                self._tell(SPEAK, playback.give(event, self._clock()))
            case Word() | Final():
                self._tell(SPEAK, replace(event, start=playback.time(event.start), end=playback.time(event.end)))
            case Marker(id=id):
                if self.answer is not None and id == str(self._answers):
                    self.answer.spoken = True
            case _:
                self._tell(SPEAK, event)

    def _was_stopped(self, event: Interrupted) -> None:
        answer, at, self._stopping_at = self.answer, self._stopping_at, None
        if answer is None or at is None:
            return  # it is closed
        self.playback.stop(at, event.heard)
        self.stopped = None if answer.unwanted else answer
        self._conclude(answer, max(answer.heard, event.span[1] - answer.begin), at)
        self._tell_stopped(answer, at)

    def _conclude(self, answer: Answer, heard: int, end: float) -> None:
        """A reply is over: the model is told what was heard of it."""
        self.answer, self._last = None, answer
        answer.heard = len(answer.text[:heard].rstrip())
        text = answer.text[: answer.heard]
        self._conversation.say(text)
        if text:
            self._tell(REPLY, Final(text=text, start=self.playback.begin, end=end))

    def _tell_stopped(self, answer: Answer, at: float) -> None:
        span = (answer.begin, answer.begin + answer.heard)
        self._tell(SPEAK, Interrupted(text=answer.text[: answer.heard], span=span, heard=at))
