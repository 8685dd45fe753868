// The mode "Talk": a conversation by voice with the agent of this server, one at a time.

import {Microphone, microphones} from "../audio/microphone.js";
import {Wave} from "../audio/wave.js";
import {clock} from "../card.js";
import {fill} from "../choices.js";
import {remember} from "../memory.js";
import {explained, NO_MICROPHONE, SILENT, unanswered} from "../messages.js";
import {currentKey, languageName, talking} from "../offer.js";
import {follow} from "../scroll.js";
import {offerUndo} from "../tools.js";
import {TalkCard} from "./card.js";
import {PACKET_S, Talk} from "./talk.js";

const $ = id => document.getElementById(`talk-${id}`);
const REMEMBERED = ["model", "spoken", "voice", "device", "listening"];
const READY = "Speak when you like.";
const DOING = {
  listening: "Listening.", hearing: "You are speaking.", thinking: "Thinking …", speaking: "Speaking. Break in when you like.",
};

export const name = "talk", title = "Talk";
let models = [], cards = [], current = null, wave, reload;

export const offered = all => talking(all).length > 0;

// again: asks the server once more what it offers, and the user for the key if it has to be another one.
export function mount(again) {
  reload = again;
  wave = new Wave($("wave"), $("meter"));
  for (const id of REMEMBERED) {
    $(id).onchange = () => {
      remember("localStorage", `talk-${id}`, $(id).value);
      if (id === "model") showChoices();
      if (!current) return;
      if (id === "listening") current.listen($("listening").value === "always");
      else $("status").textContent = "This takes effect with the next talk.";
    };
  }
  $("choices").onsubmit = event => event.preventDefault();
  $("record").onclick = () => current ? current.stop() : begin();
  $("quiet").onclick = () => current?.quiet();
  $("clear").onclick = () => removed(cards.filter(card => card.talk !== current));
  addEventListener("keydown", ({key}) => { if (key === "Escape") current?.quiet(); });
  setInterval(showLag, 500);
  if (!navigator.mediaDevices) {
    $("record").disabled = true;
    fail(NO_MICROPHONE);
  }
}

export async function offer(all) {
  models = talking(all);
  fill("talk-model", models.map(({name}) => [name, name]));
  $("model-field").hidden = models.length < 2;
  fill("talk-listening", [["always", "listen"], ["alone", "do not listen"]]);
  showChoices();
  await showMicrophones();
}

export function leave() {
  current?.stop();
}

const model = () => models.find(({name}) => name === $("model").value) ?? models[0];

function showChoices() {
  const {languages, voices} = model();
  const spoken = languages.map(code => [code, languageName(code)]).sort(([, a], [, b]) => a.localeCompare(b));
  fill("talk-spoken", [["", "any language"], ...spoken]);
  $("spoken-field").hidden = spoken.length < 2;
  fill("talk-voice", voices.map(one => [one, one]));
  $("voice-field").hidden = voices.length < 2;
}

async function showMicrophones() {
  const devices = await microphones().catch(() => []);
  fill("talk-device", [["", "default"], ...devices.map(({deviceId, label}) => [deviceId, label])]);
  $("device-field").hidden = devices.length < 2;
}

function chosen() {
  const {name, languages, voices} = model(), options = {};
  if (languages.length > 1 && $("spoken").value) options.language = $("spoken").value;
  if (voices.length > 1) options.voice = $("voice").value;
  if ($("listening").value === "alone") options.half_duplex = true;
  return {model: name, options, ...(currentKey() ? {token: currentKey()} : {})};
}

async function begin() {
  if (!models.length) return reload();
  $("error").textContent = "";
  const start = chosen(), {languages} = model();
  const talk = current = new Talk(new Microphone($("device").value, PACKET_S), start, {
    state: () => showState(talk, card),
    changed: turn => follow(() => card.show(turn)),
    doing: () => showDoing(talk),
    peak: peak => wave.add(peak),
    unanswered: event => fail(unanswered(event)),
  });
  const card = new TalkCard(talk, start.options.language ?? (languages.length === 1 ? languages[0] : null), one => removed([one]));
  cards.push(card);
  follow(() => $("talks").append(card.element));
  wave.reset();
  showState(talk, card);
  requestAnimationFrame(function play() {
    if (talk.state === "over") return;
    if (talk.player.playing) talk.dialogue.play(talk.player.position);
    requestAnimationFrame(play);
  });
  await talk.run();
  if (card.empty) remove([card]);
  if (talk.error) fail(explained(talk.error));
  else if (talk.note) fail(talk.note);
  if (talk.error?.code === "unauthorized") reload();
  await showMicrophones();
}

function showState(talk, card) {
  const {state, dialogue, error} = talk, running = state === "starting" || state === "talking";
  if (state === "over") current = null;
  card.state();
  $("record").querySelector("span").textContent = {finishing: "Finishing …", over: "Talk"}[state] ?? "Stop";
  $("record").querySelector("use").setAttribute("href", running ? "#i-square" : "#i-dot");
  $("record").dataset.state = state === "talking" ? "recording" : state;
  $("quiet").hidden = state !== "talking";
  $("status").textContent = {
    starting: "Allow the microphone, if the browser asks.",
    talking: READY,
    finishing: "Finishing … the last words are on their way.",
    over: dialogue.turns.length ? "The talk is over." : error ? "" : "The talk is over. No words were heard.",
  }[state];
  $("explanation").textContent = "";
  showCards();
  showDoing(talk);
  if (state !== "over") return;
  $("lag").textContent = "";
  wave.reset();
}

function showDoing(talk) {
  const told = talk.state === "talking" ? DOING[talk.doing] : "";
  if ($("doing").textContent !== told) $("doing").textContent = told;
  if (talk.doing !== "listening" && $("status").textContent === READY) $("status").textContent = "";
  $("quiet").setAttribute("aria-disabled", talk.doing !== "speaking" && talk.doing !== "thinking");
}

function showLag() {
  if (current?.state !== "talking") return;
  const {lag, unsent, dialogue} = current;
  const late = lag.explanation(unsent), why = late ?? (wave.silent && !dialogue.turns.length ? SILENT : "");
  $("clock").textContent = clock(lag.sent);
  $("lag").textContent = `${lag.seconds.toFixed(1)} s behind`;
  $("lag").classList.toggle("late", Boolean(late));
  if ($("explanation").textContent !== why) $("explanation").textContent = why; // a screen reader is told once
}

// Tells what went wrong; the same thing once.
function fail(message) {
  if (!$("error").textContent.includes(message)) $("error").textContent = `${$("error").textContent} ${message}`.trim();
}

function remove(gone) {
  cards = cards.filter(card => !gone.includes(card));
  for (const card of gone) card.element.remove();
  showCards();
}

function showCards() {
  $("empty").hidden = cards.length > 0;
  $("clear").hidden = cards.every(card => card.talk === current);
}

// Takes talks from the page for the user, who can have them back until the next thing happens.
function removed(gone) {
  remove(gone);
  offerUndo($("status"), gone.length === 1 ? "Removed." : "Cleared.", () => {
    cards = [...gone, ...cards].sort((one, other) => one.began - other.began);
    $("talks").append(...cards.map(card => card.element));
    showCards();
    $("record").focus();
  });
}
