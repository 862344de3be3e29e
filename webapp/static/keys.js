// Keyboard shortcuts for the image that has the focus, or that was last touched.
const HOLD_MS = 400; // a key held longer acts only until it is released
const PREFERENCE = "single-keys";
const viewers = new WeakMap();
let last = null;

export function register(viewer) {
  viewers.set(viewer.element, viewer);
  for (const event of ["pointerenter", "pointerdown", "focusin"]) {
    viewer.element.addEventListener(event, () => { last = viewer.element; });
  }
}

// Of those that are visible; in an open dialog, only its own viewers count.
export function activeViewer() {
  const scope = document.querySelector("dialog[open]") ?? document;
  const focused = document.activeElement?.closest(".viewer");
  const active = [focused, last, ...scope.querySelectorAll(".viewer")]
    .find((element) => element?.isConnected && scope.contains(element) && !element.closest("[hidden]"));
  return viewers.get(active) ?? null;
}

const ACTIONS = {
  b: (viewer) => viewer.showBoxes(!viewer.hasBoxes),
  o: (viewer) => viewer.showOriginal(!viewer.isOriginal),
  i: (viewer) => viewer.window.invert(),
  0: (viewer) => viewer.reset(),
  "+": (viewer) => viewer.picture.zoomBy(1.5),
  "=": (viewer) => viewer.picture.zoomBy(1.5),
  "-": (viewer) => viewer.picture.zoomBy(1 / 1.5),
  f: (viewer) => viewer.picture.fit(),
  a: (viewer) => viewer.picture.actualSize(),
  n: (viewer) => viewer.step(1),
  p: (viewer) => viewer.step(-1),
  w: (viewer) => viewer.part("window-tool").click(),
  m: (viewer) => viewer.part("measure")?.click(),
  d: (viewer) => { if (viewer.feedback?.url) viewer.part("draw").click(); },
  r: (viewer) => { if (viewer.selected) viewer.feedback?.judge(viewer.selected, "right"); },
  x: (viewer) => { if (viewer.selected) viewer.feedback?.judge(viewer.selected, "wrong"); },
  e: (viewer) => { if (viewer.selected) viewer.feedback?.beginMove(viewer.selected); },
  y: (viewer) => { if (viewer.selected) viewer.feedback?.chooseType(viewer.selected); },
  c: (viewer) => viewer.element.closest(".job")?.querySelector("[data-part=compare]")?.click(),
};
// These need no image: they move in the worklist, and tick what is chosen in it.
const LIST_ACTIONS = {
  j: (list) => list.step(1), k: (list) => list.step(-1), t: (list) => { if (list.chosen) list.tick(list.chosen); },
};
const HELD = ["b", "o"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// `list` is the worklist, null on pages without one.
export function listenToKeys(list) {
  const help = document.getElementById("help");
  if (!help) return;
  const checkbox = document.getElementById("single-keys");
  checkbox.checked = localStorage.getItem(PREFERENCE) !== "off";
  checkbox.addEventListener("change", () => localStorage.setItem(PREFERENCE, checkbox.checked ? "on" : "off"));
  addEventListener("click", ({ target }) => {
    if (target.closest("[data-help]")) help.showModal();
    target.closest("[data-close]")?.closest("dialog").close();
  });
  const held = new Map();
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || isTyping(event.target)) return;
    const isOnImage = Boolean(event.target.closest?.(".stage"));
    if (help.open || !(checkbox.checked || isOnImage)) return;
    if (event.key === "?") help.showModal();
    else if (!pressForList(event, list) && !press(event, isOnImage, held)) return;
    event.preventDefault();
  });
  addEventListener("keyup", ({ key }) => {
    const holding = held.get(key);
    held.delete(key);
    if (holding && performance.now() - holding.since > HOLD_MS) ACTIONS[key](holding.viewer);
  });
}

function pressForList({ key }, list) {
  const act = LIST_ACTIONS[key.toLowerCase()];
  if (!act || !list?.hasSeveral || document.querySelector("dialog[open]")) return false;
  act(list);
  return true;
}

// Returns whether the key did something.
function press(event, isOnImage, held) {
  const viewer = activeViewer();
  if (!viewer) return false;
  const { key, repeat } = event;
  if (ARROWS[key]) return isOnImage && moveByArrow(viewer, ARROWS[key]);
  if (key === "Escape") return leaveTool(viewer);
  if (/^[1-9]$/.test(key)) {
    viewer.select(viewer.selected === Number(key) ? null : Number(key));
    return true;
  }
  const name = key.toLowerCase();
  if (!ACTIONS[name]) return false;
  if (HELD.includes(name)) {
    if (repeat) return true;
    held.set(name, { viewer, since: performance.now() });
  }
  ACTIONS[name](viewer);
  return true;
}

function moveByArrow(viewer, [right, down]) {
  if (viewer.tool === "window") viewer.window.drag(8 * right, 8 * down); else viewer.picture.panBy(right, down);
  return true;
}

function leaveTool(viewer) {
  if (viewer.tool === "pan") return false;
  viewer.use("pan");
  return true;
}

const isTyping = (target) => Boolean(
  target.closest?.("input:not([type=checkbox], [type=range], [type=file]), textarea, select, [contenteditable]"),
);
