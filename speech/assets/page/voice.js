// A model that speaks: text goes in as it comes, speech is played as it comes, and can be stopped at any word.

import {Player} from "./audio/player.js";
import {Stream} from "./stream.js";

const AWAKE_MS = 20_000; // between empty messages, so that the server does not take silence for absence

export class Voice {
  #stream = null;
  #dropping = 0; // interruptions that the server has not answered: what comes until then was stopped
  #timer = null;
  #broken = false; // it is not tried again with every word

  // start: fields of the stream's "start"; on: "speech" (message, samples), "skipped", "quiet" (nothing is
  // being played), "failed" (error).
  constructor(start, on = {}) {
    this.start = start;
    this.on = on;
    this.player = new Player(() => this.#quiet());
    this.waiting = false;
  }

  get speaking() {
    return this.player.playing || this.waiting;
  }

  unlock() {
    return this.player.unlock();
  }

  // time: of the speech that the text stands for, in seconds.
  say(text, time = null) {
    if (this.#broken) return;
    this.#open();
    this.waiting = true;
    this.#stream.send({type: "text", text, ...(time === null ? {} : {time_s: time})});
  }

  // The text so far is whole: its last word can be spoken.
  flush() {
    this.#stream?.send({type: "flush"});
  }

  // No more text; `done` of the stream is returned.
  finish() {
    this.#stream?.finish();
    return this.#stream?.done ?? Promise.resolve();
  }

  // Falls silent, and tells the server how much was heard.
  interrupt() {
    if (!this.#stream || !this.speaking) return;
    const played = this.player.stop();
    this.waiting = false;
    this.#dropping++;
    this.#stream.send({type: "interrupt", played_s: played});
    this.on.quiet?.();
  }

  close() {
    clearInterval(this.#timer);
    this.#stream?.abandon();
    this.#stream = null;
    this.waiting = false;
    this.player.close();
  }

  #open() {
    if (this.#stream && !this.#stream.over) return;
    this.#dropping = 0;
    this.player.heard = 0;
    const stream = this.#stream = new Stream(this.start(), {
      speech: (message, samples) => {
        if (this.#dropping) return;
        this.player.add(samples, message.sample_rate, message.start);
        this.on.speech?.(message, samples);
      },
      interrupted: () => { this.#dropping--; },
      skipped: message => this.on.skipped?.(message),
    });
    stream.done.catch(error => {
      this.#broken = true;
      this.on.failed?.(error);
    }).finally(() => {
      clearInterval(timer);
      if (this.#stream !== stream) return;
      this.waiting = false;
      if (!this.player.playing) this.on.quiet?.();
    });
    const timer = this.#timer = setInterval(() => stream.send({type: "text", text: ""}), AWAKE_MS);
  }

  #quiet() {
    this.waiting = this.waiting && !this.#stream?.over && this.#stream?.finishing;
    if (!this.waiting) this.on.quiet?.();
  }
}
