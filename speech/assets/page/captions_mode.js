// The mode "Captions": one recording at a time, of the microphone or a file, as lines on the page.

import {Card, clock, silence} from "./card.js";
import {Choices} from "./choices.js";
import {explained, NO_MICROPHONE, SILENT} from "./messages.js";
import {Microphone, microphones} from "./audio/microphone.js";
import {currentKey, hearing} from "./offer.js";
import {Recorded} from "./audio/recorded.js";
import {Recording} from "./recording.js";
import {follow, nearEnd} from "./scroll.js";
import {offerUndo} from "./tools.js";
import {Voice} from "./voice.js";
import {Wave} from "./audio/wave.js";

const $ = id => document.getElementById(id);

export const name = "captions", title = "Captions";
export const choices = new Choices();
export let cards = []; // of the recordings on the page, the newest last
let current = null; // the recording under way
let turn = 0; // of who asked last: while one is finishing, only the last request is kept
let last = null; // the recording that began last
let wave, reload;

export const offered = models => hearing(models).length > 0;

// again: asks the server once more what it offers, and the user for the key if it has to be another one.
export function mount(again) {
  reload = again;
  wave = new Wave($("wave"), $("meter"));
  $("record").onclick = () => current && current.state !== "finishing" ? current.stop() : listen();
  $("open").onclick = $("choose").onclick = () => $("file").click();
  $("file").onchange = () => {
    const files = [...$("file").files];
    $("file").value = ""; // the same file may be chosen again
    read(files);
  };
  $("choices").addEventListener("change", ({target}) => {
    if (current && target !== $("layout")) $("status").textContent = "This takes effect with the next recording.";
  });
  $("clear").onclick = () => removed(cards.filter(card => card.recording !== current));
  $("newest").onclick = () => scrollTo({top: document.body.scrollHeight});
  addEventListener("scroll", showNewest, {passive: true});
  setInterval(showLag, 500);
  if (!navigator.mediaDevices) {
    $("record").disabled = true;
    fail(NO_MICROPHONE);
  }
}

export async function offer(models) {
  choices.offer(models);
  choices.microphones(await microphones().catch(() => []));
}

export function leave() {
  turn++;
  current?.stop();
  last?.hush();
  silence();
}

// Reads files one after the other.
export async function read(files) {
  $("error").textContent = "";
  for (const file of files) {
    if (!await begin(() => new Recorded(file, choices.model.takes.sample_rate))) return;
  }
}

function listen() {
  $("error").textContent = "";
  begin(() => new Microphone(choices.device));
}

// Starts a recording once the one before it has said its last word. Resolves once it is over, to whether nobody has asked
// for another one meanwhile.
async function begin(make) {
  if (!choices.models.length) {
    reload();
    return false;
  }
  const mine = ++turn;
  silence();
  current?.stop();
  await current?.over;
  if (mine !== turn) return false;
  last?.hush();
  const recording = current = last = new Recording(make(), chosen(), {
    state: () => showState(recording, card),
    changed: one => show(() => card.show(one)),
    peak: peak => wave.add(peak),
    progress: share => showProgress(recording, share),
  });
  const card = new Card(recording, languages(recording.choice), one => removed([one]));
  cards.push(card);
  show(() => $("recordings").append(card.element));
  wave.reset();
  showState(recording, card);
  await recording.run();
  if (card.empty) remove([card]);
  if (recording.error) fail(explained(recording.error));
  else if (recording.note) fail(recording.note);
  if (recording.error?.code === "unauthorized") reload();
  if (recording.live) choices.microphones(await microphones().catch(() => []));
  return mine === turn;
}

function chosen() {
  const {model, language, translation, latency} = choices;
  const speaker = choices.voice;
  const start = () => ({model: speaker.name, ...(currentKey() ? {token: currentKey()} : {})});
  const voice = speaker ? new Voice(start, {failed: error => fail(`The translation is not said. ${explained(error)}`)}) : null;
  voice?.unlock();
  const several = model.latencies_ms.length > 1;
  return {model, language: model.languages.length > 1 ? language : null, translation, latency: several ? latency : null,
    key: currentKey(), voice, turns: choices.turns};
}

function languages({model, language, translation}) {
  const source = language ?? (model.languages.length === 1 ? model.languages[0] : translation?.from ?? null);
  if (translation && !translation.options.translate_to) return {source: translation.to, target: null};
  return {source, target: translation?.to ?? null};
}

function showState(recording, card) {
  const {state, live, captions, error} = recording;
  card.state();
  if (recording !== current) return;
  const idle = state === "over";
  if (idle) current = null;
  const label = {starting: "Stop", recording: "Stop", finishing: "Finishing …", over: "Start"}[state];
  $("record").querySelector("span").textContent = label;
  $("record").querySelector("use").setAttribute("href", state === "starting" || state === "recording" ? "#i-square" : "#i-dot");
  $("record").dataset.state = state;
  showCards();
  const told = {
    starting: live ? "Allow the microphone, if the browser asks." : `Reading ${recording.source.name} …`,
    recording: live ? "Listening." : `Reading ${recording.source.name} …`,
    finishing: "Finishing … the last words are on their way.",
    over: captions.utterances.length ? "Finished." : error ? "" : "Finished. No words were heard.",
  };
  $("status").textContent = told[state];
  $("explanation").textContent = "";
  $("upload").hidden = live || idle;
  if (idle) {
    $("lag").textContent = "";
    if (live) wave.reset();
  }
  if (state === "starting") showProgress(recording, 0);
}

function showProgress(recording, share) {
  $("progress-name").textContent = `${recording.source.name} · ${Math.round(share * 100)} %`;
  $("progress").value = share;
}

function showLag() {
  if (!current?.lag) return;
  const {lag, live, state, unsent, tape} = current;
  $("clock").textContent = clock(tape.duration);
  if (!live || state !== "recording") return void ($("lag").textContent = "");
  const late = lag.explanation(unsent), why = late ?? (wave.silent ? SILENT : "");
  $("lag").textContent = `${lag.seconds.toFixed(1)} s behind`;
  $("lag").classList.toggle("late", Boolean(late));
  if ($("explanation").textContent !== why) $("explanation").textContent = why; // a screen reader is told once
}

// Tells what went wrong, beside what went wrong before since the user last began something.
function fail(message) {
  $("error").textContent = `${$("error").textContent} ${message}`.trim();
}

function remove(gone) {
  cards = cards.filter(card => !gone.includes(card));
  for (const card of gone) card.element.remove();
  showCards();
}

function showCards() {
  $("empty").hidden = cards.length > 0;
  $("clear").hidden = cards.every(card => card.recording === current);
}

// Takes recordings from the page for the user, who can have them back until the next thing happens.
function removed(gone) {
  silence();
  remove(gone);
  offerUndo($("status"), gone.length === 1 ? "Removed." : "Cleared.", () => {
    cards = [...gone, ...cards].sort((one, other) => one.began - other.began);
    $("recordings").append(...cards.map(card => card.element));
    showCards();
    $("record").focus();
  });
}

function show(change) {
  follow(change);
  showNewest();
}

function showNewest() {
  $("newest").hidden = !cards.length || nearEnd();
}
