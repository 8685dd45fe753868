// A talk on the page: its turns as they come, and what can be done with them.
//
// Nothing here is read out by itself: the microphone would hear the screen reader, and the agent would fall silent.

import {written} from "../exports.js";
import {equip, stamp} from "../tools.js";
import {AGENT} from "./dialogue.js";

export class TalkCard {
  #lines = new Map(); // turns and their elements

  // language: that the user speaks, a code or null. removed: called when the user has removed it.
  constructor(talk, language, removed) {
    this.talk = talk;
    this.language = language;
    this.began = new Date();
    this.element = document.getElementById("recording-template").content.cloneNode(true).firstElementChild;
    this.list = this.element.querySelector(".lines");
    this.element.querySelector("h2").textContent = `Talk, ${this.began.toLocaleTimeString([], {timeStyle: "short"})}`;
    equip(this.element, {
      name: () => `talk-${stamp(this.began)}`,
      content: format => written(format, this.#utterances, language),
      removed: () => removed(this),
    });
    this.state();
  }

  get empty() {
    return !this.talk.dialogue.turns.length;
  }

  // Shows what has changed of the talk as a whole.
  state() {
    const {state, dialogue} = this.talk;
    this.element.dataset.state = state === "talking" ? "recording" : state;
    this.element.querySelector(".about").textContent = {starting: "starting …", talking: "under way", finishing: "finishing …"}[state] ?? "";
    this.element.querySelector(".tools").hidden = !dialogue.turns.some(one => one.over);
    this.element.querySelector(".remove").hidden = state !== "over";
  }

  // Shows a turn, or that it is gone.
  show(turn) {
    const gone = !this.talk.dialogue.turns.includes(turn);
    let line = this.#lines.get(turn);
    if (gone) {
      line?.remove();
      this.#lines.delete(turn);
      return;
    }
    if (!line) this.#lines.set(turn, line = this.#line(turn));
    const fill = (name, text) => { line.querySelector(name).textContent = text; };
    const agent = turn.speaker === AGENT;
    fill(".certain", agent ? turn.text.slice(0, turn.heard) : turn.text);
    fill(".tentative", agent ? turn.text.slice(turn.heard) : turn.unstable);
    fill(".note", turn.cut ? " … (stopped here)" : "");
    line.classList.toggle("open", !turn.over);
    if (turn.over) this.element.querySelector(".tools").hidden = false;
  }

  #line(turn) {
    const line = document.getElementById("turn-template").content.cloneNode(true).firstElementChild;
    line.classList.add(turn.speaker === AGENT ? "agent" : "user");
    line.querySelector(".who").textContent = turn.speaker;
    if (this.language && turn.speaker !== AGENT) line.querySelector(".words").lang = this.language;
    this.list.append(line);
    return line;
  }

  get #utterances() {
    return this.talk.dialogue.turns.filter(one => one.over).map(({speaker, text, start, end}) =>
      ({text: `${speaker}: ${text.trim()}`, translation: "", words: [], start: start ?? 0, end: end ?? start ?? 0, final: true}));
  }
}
