// A recording as a file: the formats of `loquent transcribe`, byte by byte the same.

import {cues, oneLine} from "./cues.js";

export const FORMATS = {
  txt: {title: "Text", type: "text/plain", write: text},
  srt: {title: "SubRip captions", type: "application/x-subrip", write: srt},
  vtt: {title: "WebVTT captions", type: "text/vtt", write: vtt},
  json: {title: "JSON with word times", type: "application/json", write: json},
};

// What is final of the utterances, as text of the format.
export function written(format, utterances, language = null) {
  return FORMATS[format].write(utterances.filter(one => one.final), language);
}

// Lets the browser save a file.
export function download(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], {type}));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function text(utterances) {
  const lines = utterances.flatMap(({text, translation}) => [oneLine(text), oneLine(translation)]);
  return lines.filter(Boolean).map(line => `${line}\n`).join("");
}

function srt(utterances) {
  const line = text => text.replace(/--+>/g, "->"); // SubRip has no escapes, and an arrow reads as a time line
  return utterances.flatMap(cues).map((cue, at) =>
    `${at + 1}\n${times(cue, ",")}\n${cue.lines.map(line).join("\n")}\n\n`).join("");
}

function vtt(utterances) {
  const line = text => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const body = utterances.flatMap(cues).map(cue => `${times(cue, ".")}\n${cue.lines.map(line).join("\n")}\n\n`);
  return `WEBVTT\n\n${body.join("")}`;
}

function json(utterances, language) {
  const segments = utterances.map(({start, end, text, words, translation}, id) =>
    ({id, start, end, text, words, ...(translation ? {translation: translation.trim()} : {})}));
  const whole = utterances.map(one => oneLine(one.text)).filter(Boolean).join(" ");
  return `${JSON.stringify({language, segments, text: whole}, null, 1)}\n`;
}

function times({start, end}, mark) {
  const begin = milliseconds(start);
  return `${clock(begin, mark)} --> ${clock(Math.max(milliseconds(end), begin + 1), mark)}`;
}

// Rounded half to even, as Python rounds.
function milliseconds(seconds) {
  const value = seconds * 1000, floor = Math.floor(value);
  if (value - floor === 0.5) return floor + floor % 2;
  return Math.round(value);
}

function clock(ms, mark) {
  const two = number => String(number).padStart(2, "0");
  const hours = Math.floor(ms / 3_600_000), minutes = Math.floor(ms / 60_000) % 60, seconds = Math.floor(ms / 1000) % 60;
  return `${two(hours)}:${two(minutes)}:${two(seconds)}${mark}${String(ms % 1000).padStart(3, "0")}`;
}
