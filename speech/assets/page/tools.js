// Copy, download and remove: what can be done with a recording or a talk on the page.

import {download, FORMATS} from "./exports.js";

const COPIED_MS = 2000;

// element: from a template with ".copy", ".menu" and ".remove".
// name(): of a file, without its ending; content(format): what is in it; removed(): the user has removed it.
export function equip(element, {name, content, removed}) {
  const [copy, menu, remove] = [".copy", ".menu", ".remove"].map(one => element.querySelector(one));
  copy.hidden = !navigator.clipboard; // there is none over plain HTTP
  copy.onclick = async () => {
    const label = copy.querySelector("span");
    await navigator.clipboard.writeText(content("txt"));
    label.textContent = "Copied";
    setTimeout(() => { label.textContent = "Copy"; }, COPIED_MS);
  };
  remove.onclick = removed;
  const close = () => {
    menu.open = false;
    menu.querySelector("summary").focus();
  };
  for (const [format, {title, type}] of Object.entries(FORMATS)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = title;
    button.dataset.format = format;
    button.onclick = () => {
      download(`${name()}.${format}`, content(format), type);
      close();
    };
    menu.querySelector(".formats").append(button);
  }
  menu.onkeydown = ({key}) => { if (key === "Escape") close(); };
  menu.addEventListener("focusout", ({relatedTarget}) => {
    if (relatedTarget && !menu.contains(relatedTarget)) menu.open = false;
  });
}

// Tells in `status` that something is gone, with a button that brings it back, until the next thing happens.
export function offerUndo(status, told, restore) {
  const back = document.createElement("button");
  back.type = "button";
  back.className = "link";
  back.textContent = "Undo";
  back.onclick = () => {
    status.textContent = "";
    restore();
  };
  status.replaceChildren(`${told} `, back);
  back.focus();
}

// A time as part of a file's name.
export function stamp(date) {
  const two = number => String(number).padStart(2, "0");
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}-${two(date.getHours())}${two(date.getMinutes())}`;
}
