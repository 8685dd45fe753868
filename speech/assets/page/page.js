// The page as a whole: what the server offers, its key, and the modes between which the user chooses.
//
// A mode is a module with a section of its name in page.html. It exports name, title, offered(models), mount(reload),
// offer(models) and leave().

import * as captions from "./captions_mode.js";
import {explained} from "./messages.js";
import {currentKey, fetchOffer, setKey} from "./offer.js";
import * as speak from "./speak_mode.js";
import * as talk from "./talk/mode.js";

const MODES = [captions, speak, talk];
const WRONG = "The server does not accept this key.";
const $ = id => document.getElementById(id);
let mode = captions;

export const ready = start();

async function start() {
  for (const one of MODES) one.mount(() => load(WRONG));
  takeDrops();
  $("key-form").onsubmit = event => {
    event.preventDefault();
    setKey($("key").value);
    load(WRONG);
  };
  await load("");
}

// wrong: what to say if the key that there is does not do.
async function load(wrong) {
  try {
    const models = await fetchOffer();
    if (!models) return askForKey(currentKey() && wrong);
    $("key-dialog").close();
    const offered = MODES.filter(one => one.offered(models));
    for (const one of offered) await one.offer(models);
    showModes(offered);
  } catch (error) {
    $("error").textContent = error instanceof TypeError ? explained({code: "unreachable"}) : explained(error);
  }
}

function askForKey(wrong) {
  $("key-error").textContent = wrong;
  if (!$("key-dialog").open) $("key-dialog").showModal();
  $("key").select();
}

function showModes(offered) {
  const list = $("modes");
  list.replaceChildren(...offered.map(one => {
    const tab = document.createElement("button");
    Object.assign(tab, {type: "button", id: `tab-${one.name}`, textContent: one.title});
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", one.name);
    tab.onclick = () => enter(one);
    return tab;
  }));
  list.onkeydown = ({key}) => { // arrows move between tabs, and only the chosen one is a stop of the tab key
    const step = {ArrowRight: 1, ArrowLeft: -1}[key];
    if (!step) return;
    enter(offered[(offered.indexOf(mode) + step + offered.length) % offered.length]);
    $(`tab-${mode.name}`).focus();
  };
  list.hidden = offered.length < 2;
  for (const one of offered) {
    if (list.hidden) continue;
    $(one.name).setAttribute("role", "tabpanel");
    $(one.name).setAttribute("aria-labelledby", `tab-${one.name}`);
  }
  enter(offered.includes(mode) ? mode : offered[0] ?? mode);
}

function enter(one) {
  if (one !== mode) mode.leave();
  mode = one;
  for (const other of MODES) {
    $(other.name).hidden = other !== one;
    $(`tab-${other.name}`)?.setAttribute("aria-selected", other === one);
    $(`tab-${other.name}`)?.setAttribute("tabindex", other === one ? 0 : -1);
  }
}

// Recordings may be dropped anywhere.
function takeDrops() {
  let depth = 0; // of elements that the pointer is within
  const show = by => { $("drop").hidden = !(depth = Math.max(0, depth + by)); };
  const files = event => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", event => { if (files(event)) show(1); });
  addEventListener("dragleave", event => { if (files(event)) show(-1); });
  addEventListener("dragover", event => { if (files(event)) event.preventDefault(); });
  addEventListener("drop", event => {
    if (!files(event)) return;
    event.preventDefault();
    show(-depth);
    if (captions.choices.models.length) enter(captions);
    captions.read([...event.dataTransfer.files]);
  });
}
