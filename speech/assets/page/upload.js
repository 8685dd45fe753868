// A file that the browser cannot decode, sent to the server to be transcribed there (docs/reference/http.md).

import {Failed} from "./stream.js";

// fields: of the form; progress(share): of what was sent, from 0 to 1. Resolves to segments {start, end, text}.
// signal: an AbortSignal; an upload that is given up resolves to null.
export function upload(file, fields, key, progress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", new URL("v1/audio/transcriptions", document.baseURI));
    if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
    request.responseType = "json";
    request.upload.onprogress = event => { if (event.lengthComputable) progress(event.loaded / event.total); };
    request.onload = () => {
      if (request.status === 200) return resolve(request.response.segments);
      const code = {401: "unauthorized", 429: "busy", 503: "busy"}[request.status] ?? "refused";
      const why = request.response?.error?.message ?? `status ${request.status}`;
      reject(new Failed(code, `Neither this browser nor the server could read ${file.name} (${why}).`));
    };
    request.onerror = () => reject(new Failed("unreachable", "no connection"));
    request.onabort = () => resolve(null);
    signal.addEventListener("abort", () => request.abort());
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append("file", file);
    request.send(form);
  });
}
