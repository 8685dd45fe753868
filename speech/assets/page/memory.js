// What the browser remembers for the page; nothing where the user does not let it.

export function remembered(store, name) {
  try {
    return window[store].getItem(`loquent-${name}`);
  } catch {
    return null;
  }
}

// store: "localStorage" (the next visit) or "sessionStorage" (this tab).
export function remember(store, name, value) {
  try {
    window[store].setItem(`loquent-${name}`, value);
  } catch {
    // then it is asked for again
  }
}
