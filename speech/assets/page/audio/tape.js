// The audio of a recording, kept in the page's memory to be heard again; the oldest goes when there is too much.

const MOST_BYTES = 128 * 2 ** 20; // 23 minutes at 48 kHz, 70 at 16 kHz

export class Tape {
  #packets = [];
  #first = 0; // position of the oldest sample that is kept
  #length = 0; // samples that were ever added

  constructor(rate, most = MOST_BYTES) {
    this.rate = rate;
    this.most = most / Int16Array.BYTES_PER_ELEMENT;
  }

  // Seconds of audio so far, and from where on they are kept.
  get duration() { return this.#length / this.rate; }
  get kept() { return this.#first / this.rate; }

  add(packet) {
    this.#packets.push(packet);
    this.#length += packet.length;
    while (this.#length - this.#first > this.most) this.#first += this.#packets.shift().length;
  }

  // The samples between two times in seconds (Int16Array); null if their beginning is no longer kept.
  slice(start, end) {
    const from = Math.floor(start * this.rate), until = Math.min(Math.ceil(end * this.rate), this.#length);
    if (from < this.#first || from >= until) return null;
    const samples = new Int16Array(until - from);
    let at = this.#first;
    for (const packet of this.#packets) {
      if (at + packet.length > from && at < until) {
        const skipped = Math.max(0, from - at);
        samples.set(packet.subarray(skipped, until - at), at + skipped - from);
      }
      at += packet.length;
    }
    return samples;
  }
}
