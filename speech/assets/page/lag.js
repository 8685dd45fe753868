// How far the captions are behind what is said, and why.

const SLOW_S = 3; // beyond the model's own latency
const UNSENT_S = 1; // of audio that waits in the browser: then it is the line

export class Lag {
  sent = 0; // seconds of audio that were given to the socket
  heard = 0; // of them, those that the server has processed

  // rate: samples a second; latency: seconds of audio that the model waits for anyhow.
  constructor(rate, latency = 1) {
    this.rate = rate;
    this.latency = latency;
  }

  add(samples) {
    this.sent += samples / this.rate;
  }

  // position: of the server, in samples.
  acknowledge(position) {
    this.heard = Math.max(this.heard, position / this.rate);
  }

  get seconds() {
    return Math.max(0, this.sent - this.heard);
  }

  // What to tell of it: null, or a reason and what can be done. unsent: bytes that have not left the browser.
  explanation(unsent) {
    if (this.seconds < SLOW_S + this.latency) return null;
    if (unsent / 2 / this.rate > UNSENT_S) {
      return "The captions are late: the connection to the server is slow, and your speech waits in this browser. Nothing " +
        "is lost; the captions catch up when the connection does.";
    }
    return "The captions are late: the server is busy and works more slowly than you speak. Nothing is lost; when you " +
      "stop, it writes the rest. Fewer streams, a smaller model or larger chunks help.";
  }
}
