// Who said what in a talk, turn by turn, from the events of its stream (docs/how-to/talk.md). It knows nothing of the
// page.

export const USER = "You", AGENT = "Agent";

export class Dialogue {
  turns = []; // in order; those that are not over may still change, or go
  #open = null; // what the user is saying
  #answer = null; // the reply that began last
  #asked = false; // whether a turn of the user is over that it does not belong to

  // changed: called with each turn that an event changed; it is not among the turns any more if nothing is left of it.
  constructor(changed = () => {}) {
    this.changed = changed;
  }

  // Whether a reply is under way.
  get replying() {
    return Boolean(this.#answer) && !this.#answer.over && !this.#asked;
  }

  // Takes an event of the stream, of any stage.
  add(event) {
    if (event.stage === "hear") this.#hears(event);
    else if (event.stage === "turn" && event.type === "final") this.#ends(event);
    else if (event.stage === "reply") this.#replies(event);
    else if (event.type === "interrupted") this.#stops(event);
  }

  // Speech is on its way to the loudspeaker: notes where its words are in the reply.
  spoken({text, start}) {
    const turn = this.#answer, words = text.trim();
    const at = words && turn ? turn.text.indexOf(words, turn.marks.at(-1)?.until ?? 0) : -1;
    if (at >= 0) turn.marks.push({start, until: at + words.length});
  }

  // What the user hears at a time of the talk is heard.
  play(position) {
    const turn = this.#answer;
    if (!turn || turn.over) return;
    const heard = turn.marks.findLast(({start}) => start < position)?.until ?? 0;
    if (heard > turn.heard) this.#change(turn, {heard});
  }

  // The end of the talk: what is tentative will not become certain, and what was not heard will not be.
  finish() {
    for (const turn of this.turns.filter(one => !one.over)) {
      if (turn.speaker === AGENT) this.#cut(turn, turn.text.slice(0, turn.heard));
      else this.#drop(turn);
    }
  }

  #begin(speaker) {
    const turn = {
      speaker, text: "", start: null, end: null, over: false,
      said: "", unstable: "", // of the user: finished utterances; what may still change
      whole: "", offset: 0, heard: 0, cut: false, marks: [], // of the agent: all of the reply; characters of it
      // before this turn; characters of the text; whether the rest was not heard; where the speech is in the text
    };
    this.turns.push(turn);
    return turn;
  }

  #hears({type, text, stable, unstable}) {
    if (type !== "partial" && type !== "final") return;
    if (!this.#open && !(type === "final" ? text : stable + unstable).trim()) return;
    const turn = this.#open ??= this.#begin(USER);
    if (type === "final") turn.said = `${turn.said} ${text.trim()}`.trim();
    const more = type === "final" ? "" : stable.trimStart();
    this.#change(turn, {text: `${turn.said} ${more}`.trimStart(), unstable: type === "final" ? "" : unstable});
  }

  #ends({text, start, end}) {
    const turn = this.#open ?? this.#begin(USER);
    this.#open = null;
    this.#asked = true;
    this.#change(turn, {text, unstable: "", start, end, over: true});
  }

  #replies({type, stable, text, start, end}) {
    if (type === "partial") {
      const turn = this.#answer && !this.#answer.over ? this.#answer : this.#reply(stable);
      this.#change(turn, {whole: stable, text: stable.slice(turn.offset)});
    } else if (type === "final" && this.#answer) {
      const turn = this.#answer;
      Object.assign(turn, {start, end});
      this.#cut(turn, text.slice(turn.offset));
    }
  }

  // The turn of a reply whose first text comes: it may be the rest of one that the user has broken in on for a moment.
  #reply(stable) {
    const before = this.#answer;
    const goesOn = before?.cut && before.text && stable === before.whole;
    this.#asked = false;
    if (goesOn && this.turns.at(-1) === before) return Object.assign(before, {over: false, cut: false});
    this.#answer = this.#begin(AGENT);
    if (goesOn) this.#answer.offset = before.offset + before.text.length;
    return this.#answer;
  }

  #stops({text, heard}) {
    const turn = this.#answer;
    if (!turn || this.#asked) return; // of a reply that had no text yet
    turn.end = heard;
    this.#cut(turn, text.slice(turn.offset));
  }

  // A reply is over, and this was heard of it.
  #cut(turn, text) {
    const cut = turn.offset + text.trimEnd().length < turn.whole.trimEnd().length;
    if (text.trim()) this.#change(turn, {text, heard: text.length, cut, over: true});
    else this.#drop(Object.assign(turn, {text: "", cut: true, over: true}));
  }

  #drop(turn) {
    this.turns = this.turns.filter(one => one !== turn);
    if (turn === this.#open) this.#open = null;
    this.changed(turn);
  }

  #change(turn, values) {
    this.changed(Object.assign(turn, values));
  }
}
