// One stream of the native protocol (docs/reference/protocol.md): a websocket from "start" to "done".

export class Failed extends Error {
  // code: of the protocol, or "unreachable", "lost".
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const CONNECT_MS = 15_000; // what is said until then is kept

export class Stream {
  // start: fields of the message of that name.
  // on: functions by type of message ("ready", "final", …), and "event" for every one of them. That of "speech" gets the
  //     message and its int16 samples.
  constructor(start, on) {
    this.on = on;
    this.waiting = []; // what is sent before the socket is open
    this.finishing = this.over = false;
    this.done = new Promise((resolve, reject) => { this.settle = {resolve, reject}; });
    this.done.catch(() => {}); // who awaits it is told
    const url = new URL("v1/stream", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    this.verdict = new Failed("unreachable", "no connection");
    const patience = setTimeout(() => this.socket.close(), CONNECT_MS);
    this.socket.onopen = () => {
      clearTimeout(patience);
      this.verdict = new Failed("lost", "the connection was lost");
      this.socket.send(JSON.stringify({type: "start", ...start}));
      for (const message of this.waiting.splice(0)) this.socket.send(message);
    };
    this.socket.onmessage = ({data}) => this.#receive(data);
    this.socket.onclose = () => {
      this.over = true;
      if (this.verdict) this.settle.reject(this.verdict);
      else this.settle.resolve();
    };
  }

  // Bytes that have not left the browser.
  get unsent() {
    return this.waiting.reduce((sum, message) => sum + (message.byteLength ?? 0), this.socket.bufferedAmount);
  }

  // Sends samples (Int16Array) or a message (object); nothing goes out after "finish" but an interruption.
  send(message) {
    if (this.over || this.finishing && message.type !== "interrupt") return;
    const raw = ArrayBuffer.isView(message) ? message : JSON.stringify(message);
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(raw);
    else if (this.socket.readyState === WebSocket.CONNECTING) this.waiting.push(raw);
  }

  // Ends the input; what is left of the events still comes, then `done` resolves.
  finish() {
    this.send({type: "finish"});
    this.finishing = true;
  }

  // Gives up at once.
  abandon() {
    this.verdict = null;
    this.socket.close();
  }

  #receive(data) {
    if (typeof data !== "string") {
      const samples = new Int16Array(data);
      this.on.speech?.(this.header, samples);
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "speech") this.header = message;
    else if (message.type === "failure") this.verdict = new Failed(message.code, message.message);
    else if (message.type === "done") this.verdict = null;
    if (message.type !== "speech") this.on[message.type]?.(message);
    this.on.event?.(message);
  }
}
