// Single keys for the picture that has the focus, or that the reader last touched.
const HOLD_MS = 400; // held longer, a look ends with the key
const CHOICE = "single-keys";
const readers = new WeakMap();
let last = null;

export function register(reader) {
  readers.set(reader.element, reader);
  for (const event of ["pointerenter", "pointerdown", "focusin"]) {
    reader.element.addEventListener(event, () => { last = reader.element; });
  }
}

// Within an open dialog only its own pictures count.
export function activeReader() {
  const room = document.querySelector("dialog[open]") ?? document;
  const near = document.activeElement?.closest(".viewer");
  const found = [near, last, room.querySelector(".viewer")].find((element) => element?.isConnected && room.contains(element));
  return readers.get(found) ?? null;
}

const ACTS = {
  b: (reader) => reader.showBoxes(!reader.hasBoxes),
  o: (reader) => reader.showOriginal(!reader.isOriginal),
  i: (reader) => reader.window.invert(),
  0: (reader) => reader.reset(),
  "+": (reader) => reader.picture.zoomBy(1.5),
  "=": (reader) => reader.picture.zoomBy(1.5),
  "-": (reader) => reader.picture.zoomBy(1 / 1.5),
  f: (reader) => reader.picture.fit(),
  a: (reader) => reader.picture.actualSize(),
  n: (reader) => reader.step(1),
  p: (reader) => reader.step(-1),
  w: (reader) => reader.part("window-tool").click(),
  d: (reader) => { if (reader.feedback?.url) reader.part("draw").click(); },
  r: (reader) => { if (reader.chosen) reader.feedback?.judge(reader.chosen, "right"); },
  x: (reader) => { if (reader.chosen) reader.feedback?.judge(reader.chosen, "wrong"); },
  c: (reader) => reader.element.closest(".job")?.querySelector("[data-part=compare]")?.click(),
};
const HELD = ["b", "o"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function listenToKeys() {
  const help = document.getElementById("help");
  if (!help) return;
  const choice = document.getElementById("single-keys");
  choice.checked = localStorage.getItem(CHOICE) !== "off";
  choice.addEventListener("change", () => localStorage.setItem(CHOICE, choice.checked ? "on" : "off"));
  addEventListener("click", ({ target }) => {
    if (target.closest("[data-help]")) help.showModal();
    target.closest("[data-close]")?.closest("dialog").close();
  });
  const held = new Map();
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target)) return;
    const isOnPicture = Boolean(event.target.closest?.(".stage"));
    if (help.open || !(choice.checked || isOnPicture)) return;
    if (event.key === "?") help.showModal();
    else if (!press(event, isOnPicture, held)) return;
    event.preventDefault();
  });
  addEventListener("keyup", ({ key }) => {
    const look = held.get(key);
    held.delete(key);
    if (look && performance.now() - look.since > HOLD_MS) ACTS[key](look.reader);
  });
}

// Says whether the key meant something.
function press(event, isOnPicture, held) {
  const reader = activeReader();
  if (!reader) return false;
  const { key, repeat } = event;
  if (ARROWS[key]) return isOnPicture && arrow(reader, ARROWS[key]);
  if (key === "Escape") return leave(reader);
  if (/^[1-9]$/.test(key)) {
    reader.choose(reader.chosen === Number(key) ? null : Number(key));
    return true;
  }
  const name = key.toLowerCase();
  if (!ACTS[name]) return false;
  if (HELD.includes(name)) {
    if (repeat) return true;
    held.set(name, { reader, since: performance.now() });
  }
  ACTS[name](reader);
  return true;
}

function arrow(reader, [right, down]) {
  if (reader.tool === "window") reader.window.drag(8 * right, 8 * down); else reader.picture.panBy(right, down);
  return true;
}

function leave(reader) {
  if (reader.tool === "pan") return false;
  reader.use("pan");
  return true;
}

const isTyping = (target) => Boolean(
  target.closest?.("input:not([type=checkbox], [type=range], [type=file]), textarea, select, [contenteditable]"),
);
