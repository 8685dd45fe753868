// A file, decoded by the browser into packets of int16 samples.

const PACKET_S = 0.1;
const MOST_BYTES = 256 * 2 ** 20; // of a file: it is decoded as a whole
const AHEAD = 65536; // bytes that may wait in the socket: what the server has not taken, it is not sent

export class Recorded {
  live = false;
  #closed = false;

  // sampleRate: to decode to, that of the model; the browser resamples.
  constructor(file, sampleRate) {
    this.file = file;
    this.name = file.name;
    this.sampleRate = sampleRate;
  }

  // Decodes the file. Rejects with an EncodingError where the browser does not know the format.
  async open() {
    if (this.file.size > MOST_BYTES) {
      throw new Error(`${this.name} is larger than 256 MB. Let “loquent transcribe” read it, or cut it.`);
    }
    const context = new OfflineAudioContext(1, 1, this.sampleRate);
    const audio = await context.decodeAudioData(await this.file.arrayBuffer());
    this.samples = audio.getChannelData(0).slice();
    for (let channel = 1; channel < audio.numberOfChannels; channel++) {
      audio.getChannelData(channel).forEach((sample, at) => { this.samples[at] += sample; });
    }
    this.scale = 32768 / audio.numberOfChannels;
    this.duration = audio.duration;
    return this.sampleRate;
  }

  // Hands on every packet, as fast as waiting() says that those before it are taken.
  async run(take, waiting) {
    const size = Math.round(PACKET_S * this.sampleRate);
    for (let at = 0; at < this.samples.length && !this.#closed; at += size) {
      while (waiting() > AHEAD && !this.#closed) await new Promise(done => setTimeout(done, 20));
      const packet = Int16Array.from(this.samples.subarray(at, at + size), sample =>
        Math.max(-32768, Math.min(32767, Math.round(sample * this.scale))));
      if (!this.#closed) take(packet);
    }
    this.samples = null;
  }

  close() {
    this.#closed = true;
  }
}
