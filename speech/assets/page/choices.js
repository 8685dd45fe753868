// The settings of a recording: what this server offers, and what the user chose, kept for the next visit.

import {remember, remembered} from "./memory.js";
import {hearing, languageName, speaking} from "./offer.js";

const $ = id => document.getElementById(id);
const REMEMBERED = ["model", "spoken", "target", "aloud", "layout", "latency", "device"];

export class Choices {
  constructor() {
    this.models = [];
    this.voices = [];
    $("choices").onsubmit = event => event.preventDefault();
    for (const id of REMEMBERED) {
      $(id).onchange = () => {
        remember("localStorage", id, $(id).value);
        this.#show();
      };
    }
  }

  // models: of the offer.
  offer(models) {
    this.models = hearing(models);
    this.voices = speaking(models);
    fill("model", this.models.map(({name}) => [name, name]));
    fill("layout", [["beside", "side by side"], ["below", "one below the other"]]);
    this.#show();
  }

  // devices: of `microphones`.
  microphones(devices) {
    fill("device", [["", "default"], ...devices.map(({deviceId, label}) => [deviceId, label])]);
    $("device-field").hidden = devices.length < 2;
  }

  get model() {
    return this.models.find(({name}) => name === $("model").value) ?? this.models[0];
  }

  // The code, or null to detect it.
  get language() {
    const {languages} = this.model;
    return languages.length === 1 ? languages[0] : $("spoken").value || null;
  }

  get translation() {
    return this.#translations.find(one => one.to === $("target").value) ?? null;
  }

  get latency() {
    return Number($("latency").value) || this.model.latencies_ms[0] || null;
  }

  get device() {
    return $("device").value;
  }

  // The model that can say the translation, if the user wants it said; and whether in the pauses only.
  get voice() {
    return $("aloud").value === "off" || $("aloud-field").hidden ? null : this.#speaker;
  }

  get turns() {
    return $("aloud").value === "turns";
  }

  get #translations() {
    const {language, model} = this;
    return model.translations.filter(({from, to}) => to !== language && (!from || !language || from === language));
  }

  get #speaker() {
    const {translation} = this;
    return translation && this.voices.find(({languages}) => languages.includes(translation.to));
  }

  #show() {
    const {model} = this;
    if (!model) return;
    $("model-field").hidden = this.models.length < 2;
    const languages = model.languages.map(code => [code, languageName(code)]).sort(([, a], [, b]) => a.localeCompare(b));
    fill("spoken", [["", "any language"], ...languages]);
    $("spoken-field").hidden = languages.length < 2;
    fill("target", [["", "no translation"], ...this.#translations.map(({to}) => [to, languageName(to)])]);
    $("target-field").hidden = !this.#translations.length;
    fill("latency", model.latencies_ms.map(ms => [String(ms), `every ${ms} ms`]));
    $("latency-field").hidden = model.latencies_ms.length < 2;
    const {translation, latency, language} = this;
    fill("aloud", [["off", "no"], ["along", "while I speak"], ["turns", "when I pause"]]);
    $("aloud-field").hidden = !this.#speaker;
    $("layout-field").hidden = !translation?.options.translate_to;
    document.body.classList.toggle("below", $("layout").value === "below");
    const spoken = languages.length === 1 ? languageName(language) : "";
    const pace = latency && model.latencies_ms.length === 1 ? `new words every ${latency} ms` : "";
    $("about").textContent = [this.models.length < 2 ? model.name : "", spoken, pace].filter(Boolean).join(" · ");
  }
}

// Gives a select its options; keeps what was chosen, now or on an earlier visit, if it is among them.
export function fill(id, options) {
  const select = $(id), wanted = select.options.length ? select.value : remembered("localStorage", id);
  select.replaceChildren(...options.map(([value, label]) => new Option(label, value)));
  if (options.some(([value]) => value === wanted)) select.value = wanted;
}
