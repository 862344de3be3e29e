// Two results side by side: choose one, then another.
import { ask } from "./server.js";
import { announce } from "./words.js";
import { show } from "./viewer.js";

let first = null;

// `choice` has a `button`, a `name`, and `result` or the address of it as `self`.
export async function choose(choice) {
  if (first?.button === choice.button) { forget(); return; }
  if (!first || !first.button.isConnected) {
    first = choice;
    press(choice.button, true);
    showBar(choice.name);
    return;
  }
  const pair = [first, choice];
  forget();
  const asked = pair.map(({ result, self }) => result ?? ask("GET", `${self}?score=0`));
  const results = await Promise.all(asked).catch((error) => announce(error.message));
  if (results) open(pair.map(({ name }, index) => ({ name, result: results[index] })), choice.button);
}

export function forget() {
  if (first) press(first.button, false);
  first = null;
  document.getElementById("compare-bar").hidden = true;
}

export function forgetIf(button) { if (first?.button === button) forget(); }

export function listenToCompare() {
  document.getElementById("compare-cancel")?.addEventListener("click", forget);
  for (const button of document.querySelectorAll("[data-compare]")) {
    const { compare: self, name } = button.dataset;
    button.addEventListener("click", () => choose({ button, name, self }));
  }
}

function showBar(name) {
  document.getElementById("compare-bar").hidden = false;
  document.getElementById("compare-words").textContent = `${name} is chosen. Choose “Compare” at a second radiograph.`;
  announce(`${name} is chosen for comparing. Choose a second radiograph.`);
}

const press = (button, isPressed) => button.setAttribute("aria-pressed", String(isPressed));

function open(sides, returnTo) {
  const dialog = document.getElementById("compare");
  const panes = dialog.querySelector(".panes");
  const readers = sides.map(({ name, result }) => {
    const pane = document.createElement("section");
    const title = Object.assign(document.createElement("h3"), { className: "name", textContent: name });
    pane.setAttribute("aria-label", name);
    pane.append(title);
    panes.append(pane);
    return show(pane, result, { isCompact: true });
  });
  const link = document.getElementById("compare-link");
  link.checked = true;
  tie(readers, () => link.checked);
  dialog.addEventListener("close", () => {
    for (const reader of readers) reader.destroy();
    panes.replaceChildren();
    returnTo.focus();
  }, { once: true });
  dialog.showModal();
}

// What the leading side does, the other follows. It leads who was touched last.
function tie(readers, isLinked) {
  let leader = readers[0];
  for (const reader of readers) {
    const follow = (act) => { if (isLinked() && leader === reader) act(readers.find((other) => other !== reader)); };
    for (const event of ["pointerdown", "wheel", "keydown", "focusin", "pointerenter"]) {
      reader.element.addEventListener(event, () => { leader = reader; }, { capture: true, passive: true });
    }
    reader.picture.on("moved", () => follow((other) => other.picture.goTo(reader.picture.where())));
    reader.window.on((values) => follow((other) => other.window.set(values, false)));
    reader.on(() => follow((other) => other.showBoxes(reader.hasBoxes, false)));
  }
}
