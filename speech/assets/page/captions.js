// What is said beside its translation, utterance by utterance, from the events of a stream: `speech/bilingual.py` in
// the browser. It knows nothing of the page.

const SOURCE = "recognize", TARGET = "translate"; // names of the stages where the server chooses them

export class Captions {
  utterances = []; // in order; the last one may still change
  #current = null;
  #position = 0; // in the committed text, in characters
  #told = 0; // how far the translation has come
  #oldest = 0; // index of the first utterance whose translation is not complete

  #target = TARGET;

  // changed: called with each utterance that an event changed; first: name of the model's first stage.
  constructor(changed = () => {}, first = "") {
    this.changed = changed;
    this.sources = ["", SOURCE, first];
  }

  // Takes an event of the stream, of any stage.
  add(event) {
    const stage = event.stage ?? "";
    if (event.type === "translation" && stage) this.#target = stage;
    if (stage === this.#target) this.#translated(event);
    else if (this.sources.includes(stage)) this.#recognised(event);
  }

  // The end of the stream: what is tentative will not become certain.
  finish() {
    this.#current = null;
    this.utterances = this.utterances.filter(one => one.text || one.translation);
    for (const one of this.utterances) {
      if (one.translated && !one.unstable) continue;
      one.unstable = one.draft = "";
      one.final = one.translated = true;
      one.start ??= 0;
      one.end ??= one.start;
      this.changed(one);
    }
  }

  // Takes a whole utterance, as an upload gives it.
  put(text, start, end) {
    const one = this.#begin();
    Object.assign(one, {text: text.trim(), start, end, final: true, translated: true});
    this.#current = null;
    this.changed(one);
  }

  #begin() {
    if (!this.#current) {
      this.#current = {
        text: "", unstable: "", translation: "", draft: "", words: [], start: null, end: null, until: null,
        final: false, translated: false, // neither changes any more: the text, and what is made of it
      };
      this.utterances.push(this.#current);
    }
    return this.#current;
  }

  #recognised(event) {
    if (event.type === "word") {
      const one = this.#begin();
      const {text, start, end, confidence} = event;
      one.words.push({text, start, end, confidence});
      one.start ??= start;
      one.end = end;
      this.#position += [...text].length;
    } else if (event.type === "partial") {
      if (!this.#current && !event.stable.trim() && !event.unstable.trim()) return;
      const one = this.#begin();
      one.text = event.stable;
      one.unstable = event.unstable;
      this.changed(one);
    } else if (event.type === "final") {
      const one = this.#begin();
      Object.assign(one, {text: event.text, unstable: "", start: event.start, end: event.end, final: true});
      one.until = this.#position;
      this.#current = null;
      this.changed(one);
    }
  }

  #translated(event) {
    if (event.type === "translation") {
      const [first, end] = event.span;
      const one = this.#at(first, end);
      one.translation += event.text;
      one.draft = "";
      this.#told = Math.max(this.#told, end);
      this.changed(one);
    } else if (event.type === "partial") {
      const one = this.#at(this.#told, this.#told + 1);
      one.draft = event.unstable;
      this.changed(one);
    } else if (event.type === "final") {
      for (let one; (one = this.utterances[this.#oldest])?.final && one.until <= this.#told; this.#oldest++) {
        one.translated = true;
        this.changed(one);
      }
    }
  }

  // The utterance that a translation belongs to: one that stands for nothing is of what is before it.
  #at(first, end) {
    for (let at = Math.max(0, this.#oldest - 1); at < this.utterances.length; at++) {
      const one = this.utterances[at];
      if (one.until === null || first < one.until || first === end && end === one.until) return one;
    }
    return this.#begin();
  }
}
