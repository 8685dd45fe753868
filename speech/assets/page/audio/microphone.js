// The microphone, as packets of int16 samples at its own rate: the server resamples, and not every browser does.

export class Microphone {
  live = true;
  name = "Microphone";
  #media = null;
  #context = null;
  #lock = null;
  #closed = false;

  // device: an id of `microphones`, or "" for the browser's default; seconds: of a packet.
  constructor(device = "", seconds = 0.1) {
    this.device = device;
    this.seconds = seconds;
  }

  // Asks for permission, then calls take(packet, peak) for every packet until closed, and lost() if the device goes away.
  // Resolves to the sample rate once packets come; null if it was closed meanwhile.
  async open(take, lost) {
    const chosen = this.device ? {deviceId: {exact: this.device}} : {};
    this.#media = await navigator.mediaDevices.getUserMedia({audio: {channelCount: 1, echoCancellation: true, ...chosen}});
    if (this.#closed) return this.close();
    this.#lock = await navigator.wakeLock?.request("screen").catch(() => null); // a phone that sleeps does not listen
    const context = this.#context = new AudioContext();
    await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    await context.resume();
    if (this.#closed) return this.close();
    const form = {numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit"};
    const options = {...form, processorOptions: {seconds: this.seconds}};
    const node = new AudioWorkletNode(context, "packets", options);
    node.port.onmessage = ({data}) => { if (!this.#closed) take(data.packet, data.peak); };
    context.createMediaStreamSource(this.#media).connect(node);
    const [track] = this.#media.getTracks();
    this.name = track.label || this.name;
    track.onended = () => { if (!this.#closed) lost(); };
    return context.sampleRate;
  }

  close() {
    this.#closed = true;
    this.#media?.getTracks().forEach(track => track.stop());
    if (this.#context?.state !== "closed") this.#context?.close();
    this.#lock?.release();
    return null;
  }
}

// The microphones that the browser names, which it does once it has been allowed to use one.
export async function microphones() {
  const devices = await navigator.mediaDevices?.enumerateDevices() ?? [];
  return devices.filter(one => one.kind === "audioinput" && one.deviceId && one.label);
}
