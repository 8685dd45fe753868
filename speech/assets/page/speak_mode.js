// The mode "Speak": a text that the voice says, word by word as it is made, and that can be stopped at any word.

import {download} from "./exports.js";
import {explained} from "./messages.js";
import {currentKey, speaking} from "./offer.js";
import {Voice} from "./voice.js";
import {wav} from "./audio/wav.js";

const $ = id => document.getElementById(id);

export const name = "speak", title = "Speak";
let models = [], voice = null, words = [], kept = [], rate = 0;

export const offered = all => speaking(all).length > 0;

export function mount() {
  $("tempo").oninput = () => { $("tempo-shown").value = Number($("tempo").value).toFixed(1); };
  $("voice-model").onchange = showVoices;
  $("speech").onsubmit = event => {
    event.preventDefault();
    if (voice?.speaking) stop();
    else if ($("text").value.trim()) say($("text").value);
  };
  $("text").onkeydown = event => { // the usual key for "send" in a field of several lines
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("speech").requestSubmit();
  };
  $("keep").onclick = () => download("speech.wav", wav(kept, rate), "audio/wav");
}

export function offer(all) {
  models = speaking(all);
  $("voice-model").replaceChildren(...models.map(({name}) => new Option(name, name)));
  $("voice-model-field").hidden = models.length < 2;
  showVoices();
}

export function leave() {
  if (voice?.speaking) stop();
}

const chosen = () => models.find(({name}) => name === $("voice-model").value);

function showVoices() {
  const {voices} = chosen() ?? {voices: []};
  $("voice").replaceChildren(...voices.map(name => new Option(name, name)));
  $("voice-field").hidden = voices.length < 2;
}

function say(text) {
  voice?.close();
  [words, kept] = [[], []];
  const options = {...($("voice").value ? {voice: $("voice").value} : {})};
  if (Number($("tempo").value) !== 1) options.speed = Number($("tempo").value);
  const pressed = performance.now();
  const said = voice = new Voice(() => ({model: chosen().name, options, ...(currentKey() ? {token: currentKey()} : {})}), {
    speech: (message, samples) => {
      if (!kept.length) tell(`First sound after ${((performance.now() - pressed) / 1000).toFixed(2)} s.`);
      kept.push(samples);
      rate = message.sample_rate;
      words.push(message);
    },
    skipped: ({text: left, reason}) => tell(`Not spoken: “${left.trim()}” (${reason}).`),
    quiet: () => show(text, false),
    failed: error => { if (said === voice) fail(explained(error)); },
  });
  voice.unlock();
  fail("");
  tell("");
  voice.say(text);
  voice.finish();
  show(text, true);
  requestAnimationFrame(function follow() {
    if (said !== voice || !said.speaking) return;
    mark(text, said.player.position);
    requestAnimationFrame(follow);
  });
}

function stop() {
  voice.interrupt();
  const heard = $("reading").querySelector(".said").textContent.trim();
  tell(heard ? `Stopped after “${heard.split(/\s+/).slice(-4).join(" ")}”.` : "Stopped.");
}

function show(text, busy) {
  $("say").querySelector("span").textContent = busy ? "Stop" : "Speak";
  $("say").querySelector("use").setAttribute("href", busy ? "#i-square" : "#i-play");
  $("say").dataset.state = busy ? "recording" : "";
  $("keep").hidden = busy || !kept.length;
  $("reading").hidden = false;
  mark(text, busy ? 0 : voice.player.position);
}

// Sets off what has been heard from what has not. Spans count characters, and strings in the browser do not.
function mark(text, position) {
  const heard = words.filter(({start}) => start < position).at(-1)?.span[1] ?? 0;
  const characters = [...text];
  $("reading").querySelector(".said").textContent = characters.slice(0, heard).join("");
  $("reading").querySelector(".unsaid").textContent = characters.slice(heard).join("");
}

function tell(message) {
  $("speech-status").textContent = message;
}

function fail(message) {
  $("speech-error").textContent = message;
}
