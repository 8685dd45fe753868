// One talk: a microphone, a stream of a model that one talks with, and the speech that comes back.

import {Player} from "../audio/player.js";
import {Lag} from "../lag.js";
import {UNPLUGGED} from "../messages.js";
import {Stream} from "../stream.js";
import {Dialogue} from "./dialogue.js";

export const PACKET_S = 0.03; // of the microphone: who breaks in is noticed at the end of a packet
const PEAKS = 3; // packets for each peak that is shown

export class Talk {
  state = "starting"; // then "talking", "finishing", "over"
  lag = null;
  note = ""; // why it ended, if it was no error
  error = null;
  #stream = null;
  #speaks = false; // whether the user does
  #thinks = false; // whether a reply is awaited
  #peaks = []; // of the last packets
  #dropping = false; // what comes until the server has answered belongs to a reply that was stopped

  // source: a `Microphone`. start: fields of the stream's "start"; its options say whether it is half-duplex.
  // on: "state", "changed" (turn), "doing", "peak" (0 to 1), "unanswered" (event).
  constructor(source, start, on) {
    this.source = source;
    this.start = start;
    this.on = on;
    this.halfDuplex = Boolean(start.options.half_duplex);
    this.dialogue = new Dialogue(turn => on.changed(turn));
    this.player = new Player(() => on.doing());
  }

  // "speaking", "hearing", "thinking" or "listening".
  get doing() {
    if (this.player.playing) return "speaking";
    if (this.#speaks) return "hearing";
    if (this.#thinks) return "thinking";
    return this.#speaking ? "speaking" : "listening";
  }

  // Whether a reply is being said, even if its next piece is late.
  get #speaking() {
    return this.player.playing || this.dialogue.replying && !this.#dropping;
  }

  // Resolves once it is over and the server's places are free; `error` tells whether it went wrong.
  async run() {
    this.player.unlock();
    try {
      await this.#talk();
    } catch (error) {
      this.error = error;
    } finally {
      this.source.close();
      this.dialogue.play(this.player.position);
      this.dialogue.finish();
      this.player.close();
      this.#enter("over");
    }
  }

  // Ends it. What was said last still comes as text, and is not answered.
  stop() {
    if (this.state === "finishing" || this.state === "over") return;
    this.#enter("finishing");
    this.source.close();
    this.#hush();
    this.#stream?.finish();
  }

  // Stops the reply, and the talk goes on.
  quiet() {
    if (this.state !== "talking" || !this.#speaking && !this.#thinks) return;
    this.#thinks = false;
    this.#hush();
    this.on.doing();
  }

  // Whether to listen to the user while the agent speaks, from now on.
  listen(always) {
    this.halfDuplex = !always;
    this.#stream?.send({type: "configure", options: {half_duplex: this.halfDuplex}});
  }

  get unsent() {
    return this.#stream?.unsent ?? 0;
  }

  async #talk() {
    const rate = await this.source.open((packet, peak) => this.#take(packet, peak), () => {
      this.note = UNPLUGGED;
      this.stop();
    });
    if (this.state !== "starting") return; // stopped before it began
    this.lag = new Lag(rate, 1, "The agent is");
    this.#stream = new Stream({...this.start, sample_rate: rate, acknowledge: true}, {
      event: event => this.#heard(event),
      speech: (message, samples) => this.#say(message, samples),
      acknowledged: ({position}) => this.lag.acknowledge(position),
    });
    this.#enter("talking");
    await this.#stream.done;
  }

  #take(packet, peak) {
    if (this.state !== "talking") return;
    this.lag.add(packet.length);
    this.#stream.send(packet);
    if (this.#peaks.push(peak) === PEAKS) this.on.peak(Math.max(...this.#peaks.splice(0)));
  }

  #heard(event) {
    const {type, stage} = event;
    if (stage === "hear" && this.halfDuplex && this.#speaking) return; // the agent's own voice, perhaps
    if (type === "interrupted") {
      if (!this.#dropping && this.player.playing) this.#hush();
      else this.#dropping = false;
      this.#thinks = false;
    }
    this.dialogue.add(event);
    if (type === "activity") {
      this.#speaks = event.speaking;
      // The server stops the reply, too; nobody waits for its word.
      if (event.speaking && !this.halfDuplex && this.#speaking) this.#hush();
    } else if (type === "unanswered") {
      this.#thinks = false;
      this.on.unanswered(event);
    } else if (stage === "turn") {
      this.#thinks = true;
    }
    // The last words have come. Nobody wants an answer, nor the rest of one that was stopped.
    const answers = stage === "turn" || stage === "reply" && !this.#dropping;
    if (this.state === "finishing" && answers) this.#hush();
    this.on.doing();
  }

  #say(message, samples) {
    if (this.#dropping || this.state !== "talking") return;
    this.#thinks = false;
    this.dialogue.spoken(message);
    this.player.add(samples, message.sample_rate, message.start);
    this.on.doing();
  }

  // Falls silent, and tells the server how much was heard.
  #hush() {
    this.dialogue.play(this.player.position);
    this.#dropping = true;
    this.#stream?.send({type: "interrupt", played_s: this.player.stop()});
  }

  #enter(state) {
    this.state = state;
    this.on.state();
  }
}
