// Plays int16 samples as they come, without a gap between them, and knows what has been heard.

export class Player {
  #context = null;
  #parts = []; // {node, start, end, at}: seconds of the speech, and when on the context's clock
  #until = 0;

  // ended: called when everything that was given is played.
  constructor(ended = () => {}) {
    this.ended = ended;
  }

  // Has to be called while the user presses something: browsers allow sound only then.
  unlock() {
    this.#context ??= new AudioContext();
    return this.#context.resume();
  }

  get playing() {
    return this.#parts.length > 0;
  }

  // samples: Int16Array; start: seconds of the stream's speech.
  add(samples, rate, start = 0) {
    if (!samples.length) return;
    const context = this.#context ??= new AudioContext();
    const buffer = context.createBuffer(1, samples.length, rate);
    buffer.copyToChannel(Float32Array.from(samples, sample => sample / 32768), 0);
    const node = new AudioBufferSourceNode(context, {buffer});
    node.connect(context.destination);
    const at = Math.max(this.#until, context.currentTime + 0.05);
    this.#until = at + buffer.duration;
    const part = {node, start, end: start + buffer.duration, at};
    this.#parts.push(part);
    node.onended = () => {
      this.#parts = this.#parts.filter(other => other !== part);
      this.heard = part.end;
      if (!this.#parts.length) this.ended();
    };
    node.start(at);
  }

  heard = 0; // seconds of the speech up to the last part that is over

  // Seconds of the speech that have been heard: headphones without a cable are up to a quarter of a second late.
  get position() {
    const now = this.#context ? this.#context.currentTime - (this.#context.outputLatency || 0) : 0;
    const part = this.#parts.findLast(one => one.at <= now);
    return part ? Math.min(part.end, part.start + now - part.at) : this.heard;
  }

  // Falls silent at once; returns the position.
  stop() {
    const position = this.position;
    for (const {node} of this.#parts.splice(0)) {
      node.onended = null;
      node.stop();
    }
    this.#until = 0;
    this.heard = position;
    return position;
  }

  close() {
    this.stop();
    this.#context?.close();
    this.#context = null;
  }
}
