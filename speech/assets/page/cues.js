// Utterances cut into captions that can be read: the rules of `speech/captions.py` and `speech/text/shares.py`.

const LONGEST = 84; // characters of a caption: two lines of 42, as is usual
const PAUSE_S = 1;
const SENTENCE_END = /[.!?…。！？]+["'”’»)\]]*$/u;
const CLAUSE_ENDS = [",", ";", ":", "，", "、"];
const TITLES = new Set(["mr.", "mrs.", "ms.", "dr.", "st.", "prof."]);
const PAUSES = [",", ";", ":", ".", "!", "?", "…", "—", "，", "、", "。"];
const WORTH = 0.3; // of an average part: how far a cut of a translation moves to come after a mark

// Text without line breaks and control characters, either of which would end a caption early.
export function oneLine(text) {
  return text.replace(/\s*[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]+\s*/g, " ").trim();
}

// The captions of an utterance, in order: {start, end, lines}.
export function cues({text, translation, words, start, end}) {
  const said = oneLine(text), written = oneLine(translation);
  if (!said) return [];
  const spoken = words.filter(word => oneLine(word.text));
  if (!spoken.length) return [{start, end, lines: [said, written].filter(Boolean)}];
  const pieces = piecesOf(said, spoken);
  const parts = cuts(pieces, spoken);
  const below = sharedOut(translation, parts.map(part => count(part.join(""))));
  let done = 0;
  return parts.map((part, number) => {
    const begin = done ? spoken[done].start : start;
    done += part.length;
    const lines = [part.join("").trim(), oneLine(below[number])].filter(Boolean);
    return {start: begin, end: done === spoken.length ? end : spoken[done - 1].end, lines};
  });
}

const count = text => [...text].length;

// The text cut into one piece a word, each with the space and the punctuation before it.
function piecesOf(text, words) {
  const pieces = [];
  let at = 0;
  for (const word of words) {
    const bare = oneLine(word.text), found = text.indexOf(bare, at);
    if (found < 0) return words.map(one => one.text);
    pieces.push(text.slice(at, found + bare.length));
    at = found + bare.length;
  }
  pieces.push(pieces.pop() + text.slice(at));
  return pieces;
}

// A caption ends with a sentence, before a pause, or where it is full.
function cuts(pieces, words) {
  const parts = [];
  let begin = 0;
  for (let end = 1; end <= pieces.length; end++) {
    if (end < pieces.length && !ends(pieces, words, end)) continue;
    parts.push(...fitted(pieces.slice(begin, end)));
    begin = end;
  }
  return parts;
}

function ends(pieces, words, end) {
  if (words[end].start - words[end - 1].end >= PAUSE_S) return true;
  const last = pieces[end - 1].trim(), following = pieces[end].trim();
  return SENTENCE_END.test(last) && !TITLES.has(last.toLowerCase()) && !/^\p{Ll}/u.test(following);
}

function fitted(pieces) {
  const parts = [];
  while (pieces.length) {
    let first = 1;
    while (first < pieces.length && count(pieces.slice(0, first + 1).join("").trim()) <= LONGEST) first++;
    if (first < pieces.length) { // better after a comma, if that is not long before
      for (let at = first - 1; at > first >> 1; at--) {
        if (CLAUSE_ENDS.includes(pieces[at - 1].trim().slice(-1))) {
          first = at;
          break;
        }
      }
    }
    parts.push(pieces.slice(0, first));
    pieces = pieces.slice(first);
  }
  return parts;
}

// A text cut between words into parts that are about as long as the weights say; cuts move to come after punctuation.
function sharedOut(text, weights) {
  const words = text.match(/\s*\S+/gu) ?? [];
  const reached = [0];
  for (const word of words) reached.push(reached.at(-1) + count(word));
  const length = reached.at(-1), total = weights.reduce((sum, weight) => sum + weight, 0) || 1;
  const worth = WORTH * length / weights.length;
  const least = words.length >= weights.length ? 1 : 0; // words in a part
  let begin = 0, share = 0;
  return weights.map((weight, number) => {
    share += weight / total;
    const left = weights.length - 1 - number;
    let end = words.length;
    if (left) {
      let best = Infinity;
      for (let place = begin + least; place <= words.length - least * left; place++) {
        const marked = place > 0 && PAUSES.includes(words[place - 1].replace(/["'”’»)]+$/u, "").slice(-1));
        const cost = Math.abs(reached[place] - share * length) - (marked ? worth : 0);
        if (cost <= best) [best, end] = [cost, place];
      }
    }
    const part = words.slice(begin, end).join("");
    begin = end;
    return part;
  });
}
