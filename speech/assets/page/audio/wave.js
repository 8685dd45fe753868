// How loud it was in the last seconds, as bars; one still bar where motion is not wanted.

const BAR = 3, GAP = 2; // pixels
const SILENCE = 0.004, SILENT_AFTER = 50; // of full scale; packets of 100 ms
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Wave {
  #peaks = [];
  #quiet = 0; // packets since something was heard

  constructor(canvas, meter) {
    this.canvas = canvas;
    this.meter = meter;
    this.context = canvas.getContext("2d");
    this.reset();
  }

  // Whether nothing has been heard for five seconds.
  get silent() {
    return this.#quiet >= SILENT_AFTER;
  }

  reset() {
    this.#peaks = [];
    this.#quiet = 0;
    this.#draw();
  }

  add(peak) {
    this.#quiet = peak > SILENCE ? 0 : this.#quiet + 1;
    this.#peaks.push(peak);
    this.#peaks.splice(0, this.#peaks.length - Math.ceil(this.canvas.width / (BAR + GAP)));
    this.#draw();
  }

  #draw() {
    const {width, height} = this.canvas, {context} = this;
    const last = this.#peaks.at(-1) ?? 0;
    this.meter.setAttribute("aria-valuenow", Math.round(loudness(last) * 100));
    context.clearRect(0, 0, width, height);
    context.fillStyle = getComputedStyle(this.canvas).color;
    if (still.matches) {
      context.fillRect(0, height / 2 - 4, width * loudness(last), 8);
      return;
    }
    for (let x = width - BAR, at = this.#peaks.length - 1; x >= 0; x -= BAR + GAP, at--) {
      const size = Math.max(BAR, loudness(this.#peaks[at] ?? 0) * height);
      context.fillRect(x, (height - size) / 2, BAR, size);
    }
  }
}

// Ears hear ratios: 60 dB make the whole height.
function loudness(peak) {
  return Math.max(0, 1 + Math.log10(Math.max(peak, 1e-3)) / 3);
}
