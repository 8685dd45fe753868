// How far the server is behind what is said, and why.

const SLOW_S = 3; // beyond the model's own latency
const UNSENT_S = 1; // of audio that waits in the browser: then it is the line

export class Lag {
  sent = 0; // seconds of audio that were given to the socket
  heard = 0; // of them, those that the server has processed

  // rate: samples a second; latency: seconds of audio that the model waits for anyhow; what: "The captions are", say.
  constructor(rate, latency = 1, what = "The captions are") {
    this.rate = rate;
    this.latency = latency;
    this.what = what;
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
      return `${this.what} late: the connection to the server is slow, and your speech waits in this browser. Nothing ` +
        "is lost; the rest comes when the connection is better.";
    }
    return `${this.what} late: the server is busy and works more slowly than you speak. Nothing is lost, and ` +
      "the rest still comes. Fewer streams, a smaller model or larger chunks help.";
  }
}
