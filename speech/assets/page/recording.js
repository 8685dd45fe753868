// One recording, from its first sample to the last word of its text: a source of audio, a stream, and what came of it.

import {Captions} from "./captions.js";
import {Lag} from "./lag.js";
import {UNPLUGGED} from "./messages.js";
import {Player} from "./audio/player.js";
import {Stream} from "./stream.js";
import {Tape} from "./audio/tape.js";
import {upload} from "./upload.js";

export class Recording {
  tape = null;
  lag = null;
  state = "starting"; // then "recording", "finishing", "over"
  note = ""; // why it ended, if it was no error
  error = null;
  #stream = null;
  #uploading = new AbortController();
  #player = new Player(); // of a model that speaks itself

  // source: a `Microphone` or a `Recorded`.
  // choice: model (of the offer), language, translation (of the offer, or null), latency (ms or null), key;
  //         voice (`Voice` or null) and turns: whether it speaks in the pauses only, and stops when somebody speaks.
  // on: "state", "changed" (utterance), "peak" (0 to 1), "progress" (share).
  constructor(source, choice, on) {
    this.source = source;
    this.choice = choice;
    this.on = on;
    this.live = source.live;
    this.captions = new Captions(one => on.changed(one), choice.model.stages[0]);
    this.over = new Promise(resolve => { this.close = resolve; });
    this.unsaid = ""; // what the voice is to say in the next pause
  }

  // Resolves once everything has been said and the slot of the server is free; `error` tells whether it went wrong.
  async run() {
    if (this.choice.model.gives.kind === "audio") this.#player.unlock();
    try {
      await this.#record();
    } catch (error) {
      this.error = error;
    } finally {
      this.source.close();
      this.captions.finish();
      this.choice.voice?.finish();
      this.#enter("over");
      this.close();
    }
  }

  // Takes no more audio; the rest of the text still comes.
  stop() {
    if (this.state === "finishing" || this.state === "over") return;
    this.#enter("finishing");
    this.source.close();
    this.#uploading.abort();
    this.#stream?.finish();
  }

  async #record() {
    let rate;
    try {
      rate = await this.source.open((packet, peak) => this.#take(packet, peak), () => {
        this.note = UNPLUGGED;
        this.stop();
      });
    } catch (error) {
      if (this.live || error.name !== "EncodingError") throw error;
      return this.#upload();
    }
    if (this.state !== "starting") return; // stopped before it began
    this.tape = new Tape(rate);
    this.lag = new Lag(rate, (this.choice.latency ?? 1000) / 1000);
    this.#stream = new Stream(this.#start(rate), {
      event: event => this.#heard(event),
      acknowledged: ({position}) => {
        this.lag.acknowledge(position);
        if (!this.live) this.on.progress(this.lag.heard / this.source.duration);
      },
      speech: (message, samples) => this.#player.add(samples, message.sample_rate, message.start),
    });
    this.#enter("recording");
    if (!this.live) {
      this.source.run(packet => this.#take(packet), () => this.#stream.over ? 0 : this.#stream.unsent).then(() => this.#stream.finish());
    }
    await this.#stream.done;
  }

  async #upload() {
    const {language, model, key} = this.choice;
    this.#enter("recording");
    const fields = {model: model.name, response_format: "verbose_json", ...(language ? {language} : {})};
    const segments = await upload(this.source.file, fields, key, this.on.progress, this.#uploading.signal);
    for (const {text, start, end} of segments ?? []) this.captions.put(text, start, end);
  }

  // Falls silent; what the voice has not said yet is never heard.
  hush() {
    this.choice.voice?.close();
    this.#player.close();
  }

  get unsent() {
    return this.#stream?.unsent ?? 0;
  }

  #start(rate) {
    const {model, language, translation, latency, key} = this.choice;
    const options = {...translation?.options};
    if (language) options.language = language;
    if (latency) options.chunk_ms = latency;
    const start = {sample_rate: rate, model: model.name, options, acknowledge: true};
    return key ? {...start, token: key} : start;
  }

  #take(packet, peak = 0) {
    if (this.state !== "recording") return;
    this.tape.add(packet);
    this.lag.add(packet.length);
    this.#stream.send(packet);
    if (this.live) this.on.peak(peak);
  }

  #heard(event) {
    this.captions.add(event);
    const {voice, turns, translation} = this.choice;
    if (!voice) return;
    const second = Boolean(translation.options.translate_to); // stage; else the model itself writes the other language
    const spoken = event.type === (second ? "translation" : "word");
    const ends = event.type === "final" && (second ? event.stage === "translate" : true);
    if (turns && event.type === "partial" && event.stage !== "translate" && (event.stable + event.unstable).trim()) {
      voice.interrupt();
    }
    if (spoken && turns) this.unsaid += event.text;
    else if (spoken) voice.say(event.text, event.emission_time);
    if (ends && this.unsaid) voice.say(this.unsaid.trimStart() + " ", event.emission_time);
    if (ends) {
      this.unsaid = "";
      voice.flush();
    }
  }

  #enter(state) {
    this.state = state;
    this.on.state(state);
  }
}
