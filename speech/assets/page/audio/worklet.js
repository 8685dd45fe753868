// Runs on the audio thread: gathers packets of 100 ms as int16, with the peak of each, and posts them to the page.

const SAMPLES = Math.round(sampleRate / 10);

class Packets extends AudioWorkletProcessor {
  constructor() {
    super();
    this.packet = new Int16Array(SAMPLES);
    this.used = 0;
    this.peak = 0;
  }

  process([[channel]]) {
    for (const sample of channel ?? []) {
      this.packet[this.used++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      this.peak = Math.max(this.peak, Math.abs(sample));
      if (this.used === SAMPLES) {
        this.port.postMessage({packet: this.packet.slice(), peak: this.peak});
        this.used = this.peak = 0;
      }
    }
    return true;
  }
}

registerProcessor("packets", Packets);
