// What to tell a person when something goes wrong: what happened, and what can be done.

const UNREACHABLE = "The server cannot be reached. Is it still running? Look into its terminal, then try again.";

const OF_BROWSER = {
  AbortError: UNREACHABLE, // what runs on the audio thread could not be fetched
  NotAllowedError: "This page may not use the microphone. Allow it in the browser's settings for this site (often a symbol " +
    "beside the address), then start again.",
  NotFoundError: "No microphone was found. Plug one in, then start again.",
  NotReadableError: "The microphone is in use by another program. Close that, then start again.",
  OverconstrainedError: "The microphone that was chosen is gone. Choose another one, then start again.",
};

const OF_SERVER = {
  unreachable: UNREACHABLE,
  lost: "The connection to the server was lost. What was said until then is above; start again to go on.",
  unauthorized: "The server did not accept the key. Enter it again.",
  busy: "The server has no room for another stream. Try again in a moment.",
  overloaded: "The server cannot keep up and has ended this stream. What was said until then is above. Try again later.",
  shutting_down: "The server is shutting down. What was said until then is above.",
  idle_timeout: "The server heard nothing for a minute and has closed the stream. Start again to go on.",
  too_long: "The stream has reached the longest time that the server allows. Start again to go on.",
};

const OF_CHAT = {
  chat_unreachable: "There is no answer: the server's chat model cannot be reached.",
  chat_refused: "There is no answer: the chat model has refused to reply.",
  chat_timeout: "There is no answer: the chat model took too long.",
  chat_broken: "The answer broke off: the connection to the chat model was lost.",
  chat_failed: "There is no answer: the chat model has failed.",
};

export const NO_MICROPHONE = "Browsers give a page the microphone on https:// and on localhost only. Recordings work anywhere.";
export const SILENT = "Nothing is heard. Is the microphone muted, or is another one the right one?";
export const UNPLUGGED = "The microphone was unplugged. What was said until then is above.";

// event: an "unanswered" of a talk, which goes on.
export function unanswered({code, message}) {
  return `${OF_CHAT[code] ?? message} Say it again; if that does not help, the log of the server says more.`;
}

// error: of the browser, of `Stream`, or of `upload`.
export function explained(error) {
  return OF_BROWSER[error.name] ?? OF_SERVER[error.code] ?? (error.message || String(error));
}
