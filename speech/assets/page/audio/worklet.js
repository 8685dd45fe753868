// Runs on the audio thread: gathers packets as int16, with the peak of each, and posts them to the page.

class Packets extends AudioWorkletProcessor {
  constructor({processorOptions}) {
    super();
    this.packet = new Int16Array(Math.round(processorOptions.seconds * sampleRate));
    this.used = 0;
    this.peak = 0;
  }

  process([[channel]]) {
    for (const sample of channel ?? []) {
      this.packet[this.used++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      this.peak = Math.max(this.peak, Math.abs(sample));
      if (this.used === this.packet.length) {
        this.port.postMessage({packet: this.packet.slice(), peak: this.peak});
        this.used = this.peak = 0;
      }
    }
    return true;
  }
}

registerProcessor("packets", Packets);
