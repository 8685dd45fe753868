// What the server offers (docs/reference/http.md), and the key that it may want for that.

import {remember, remembered} from "./memory.js";

let key = remembered("sessionStorage", "key") ?? "";

export const currentKey = () => key;

export function setKey(value) {
  key = value;
  remember("sessionStorage", "key", value);
}

// Resolves to the models; to null if the key is missing or wrong.
export async function fetchOffer() {
  const headers = key ? {Authorization: `Bearer ${key}`} : {};
  const answer = await fetch(new URL("v1/offer", document.baseURI), {headers});
  if (answer.status === 401) return null;
  if (!answer.ok) throw new Error(`The server answered with status ${answer.status}.`);
  return (await answer.json()).models;
}

export const hearing = models => models.filter(model => model.takes.kind === "audio" && !model.talks);
export const speaking = models => models.filter(model => model.takes.kind === "text" && model.gives.kind === "audio");
export const talking = models => models.filter(model => model.talks);

// A language's name in English, by its code.
export function languageName(code) {
  try {
    return new Intl.DisplayNames(["en"], {type: "language"}).of(code);
  } catch {
    return code;
  }
}
