// A recording on the page: its lines as they come, and what can be done with them.

import {written} from "./exports.js";
import {Player} from "./audio/player.js";
import {equip, stamp} from "./tools.js";

const EDGE_S = 0.15; // heard before and after a line
const ANNOUNCED = 3; // lines that a screen reader may still be reading

const announcer = document.getElementById("announcer");
let playing = null; // {player, button}: one line at a time, of whatever recording

export class Card {
  #lines = new Map(); // utterances and their elements

  // languages: {source, target}: codes or null. removed: called when the user has removed it.
  constructor(recording, languages, removed) {
    this.recording = recording;
    this.languages = languages;
    const template = document.getElementById("recording-template").content.cloneNode(true);
    this.element = template.firstElementChild;
    this.list = this.element.querySelector(".lines");
    this.title = this.element.querySelector("h2");
    equip(this.element, {
      name: () => recording.live ? `loquent-${stamp(this.began)}` : recording.source.name.replace(/\.[^.]*$/, ""),
      content: format => written(format, recording.captions.utterances, languages.source),
      removed: () => removed(this),
    });
    this.began = new Date();
    this.state();
  }

  // Shows what has changed of the recording as a whole.
  state() {
    const {recording} = this, {captions, state, tape} = recording;
    const name = recording.live ? `Microphone, ${this.began.toLocaleTimeString([], {timeStyle: "short"})}` : recording.source.name;
    this.title.textContent = name;
    const told = {starting: "starting …", recording: recording.live ? "listening" : "reading", finishing: "finishing …"};
    const length = tape ? clock(tape.duration) : "";
    this.element.querySelector(".about").textContent = [told[state] ?? length, recording.choice.model.name].filter(Boolean).join(" · ");
    this.element.dataset.state = state;
    this.element.querySelector(".tools").hidden = state !== "over" && !captions.utterances.some(one => one.final);
    this.element.querySelector(".remove").hidden = state !== "over";
    if (state !== "over") return;
    const left = new Set(captions.utterances);
    for (const [one, line] of this.#lines) if (!left.has(one)) line.element.remove();
    for (const line of this.#lines.values()) this.#times(line);
  }

  // Shows an utterance; what a screen reader reads out is what can no longer change.
  show(one) {
    let line = this.#lines.get(one);
    if (!line) this.#lines.set(one, line = this.#line(one));
    fill(line.source, one.text.trimStart(), one.unstable);
    fill(line.target, one.translation.trimStart(), one.draft);
    line.target.hidden = !one.translation && !one.draft;
    this.element.classList.toggle("bilingual", this.element.classList.contains("bilingual") || !line.target.hidden);
    line.element.classList.toggle("open", !one.final);
    if (one.start !== null) this.#times(line);
    if (one.final && !line.final) announce(one.text, this.languages.source);
    if (one.translated && !line.translated) announce(one.translation, this.languages.target);
    Object.assign(line, {final: one.final, translated: one.translated});
    if (one.final) this.element.querySelector(".tools").hidden = false;
  }

  get empty() {
    return !this.recording.captions.utterances.length;
  }

  #line(one) {
    const element = document.getElementById("line-template").content.cloneNode(true).firstElementChild;
    const [source, target, time] = [".source", ".target", ".time"].map(name => element.querySelector(name));
    if (this.languages.source) source.lang = this.languages.source;
    if (this.languages.target) target.lang = this.languages.target;
    this.list.append(element);
    time.onclick = () => this.#play(one, time);
    return {one, element, source, target, time, final: false, translated: false};
  }

  #times({one, time}) {
    const {tape, live, state} = this.recording;
    const busy = live && state !== "over";
    const gone = !tape || tape.kept > one.start;
    time.textContent = clock(one.start);
    time.disabled = busy || gone || !one.final;
    time.title = busy ? "can be heard once the microphone is off" : gone ? "no longer in memory" : "hear it again";
    time.setAttribute("aria-label", `${clock(one.start)}, hear it again`);
  }

  #play(one, button) {
    const again = playing?.button === button;
    silence();
    if (again) return;
    const samples = this.recording.tape.slice(Math.max(this.recording.tape.kept, one.start - EDGE_S), one.end + EDGE_S);
    if (!samples) return;
    const player = new Player(silence);
    playing = {player, button};
    button.classList.add("playing");
    player.add(samples, this.recording.tape.rate);
  }
}

// Stops the line that is being heard again.
export function silence() {
  playing?.button.classList.remove("playing");
  playing?.player.close();
  playing = null;
}

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const two = number => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${two(whole % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

function fill(paragraph, certain, tentative) {
  paragraph.querySelector(".certain").textContent = certain;
  paragraph.querySelector(".tentative").textContent = tentative;
}

function announce(text, language) {
  if (!text.trim()) return;
  const line = document.createElement("p");
  line.textContent = text.trim();
  if (language) line.lang = language;
  announcer.append(line);
  while (announcer.childElementCount > ANNOUNCED) announcer.firstElementChild.remove();
}
