// Two results side by side: select one, then another.
import { announce } from "./dom.js";
import { fetchJson } from "./server.js";
import { show } from "./viewer.js";

let first = null;

// `choice` has a `button`, a `name`, and `result` or its URL as `self`.
export async function select(choice) {
  if (first?.button === choice.button) { cancel(); return; }
  if (!first || !first.button.isConnected) {
    first = choice;
    press(choice.button, true);
    showBar(choice.name);
    return;
  }
  const pair = [first, choice];
  cancel();
  const loading = pair.map(({ result, self }) => result ?? fetchJson("GET", `${self}?score=0`));
  const results = await Promise.all(loading).catch((error) => announce(error.message));
  if (results) open(pair.map(({ name }, index) => ({ name, result: results[index] })), choice.button);
}

function cancel() {
  if (first) press(first.button, false);
  first = null;
  document.getElementById("compare-bar").hidden = true;
}

export function deselect(button) { if (first?.button === button) cancel(); }

export function listenToCompare() {
  document.getElementById("compare-cancel")?.addEventListener("click", cancel);
  for (const button of document.querySelectorAll("[data-compare]")) {
    const { compare: self, name } = button.dataset;
    button.addEventListener("click", () => select({ button, name, self }));
  }
}

function showBar(name) {
  document.getElementById("compare-bar").hidden = false;
  document.getElementById("compare-text").textContent = `${name} is selected. Press “Compare” on a second radiograph.`;
  announce(`${name} is selected for comparison. Select a second radiograph.`);
}

const press = (button, isPressed) => button.setAttribute("aria-pressed", String(isPressed));

function open(sides, returnTo) {
  const dialog = document.getElementById("compare");
  const panes = dialog.querySelector(".panes");
  const viewers = sides.map(({ name, result }) => {
    const pane = document.createElement("section");
    const title = Object.assign(document.createElement("h3"), { className: "name", textContent: name });
    pane.setAttribute("aria-label", name);
    pane.append(title);
    panes.append(pane);
    return show(pane, result, { isCompact: true });
  });
  const link = document.getElementById("compare-link");
  link.checked = true;
  linkViewers(viewers, () => link.checked);
  dialog.addEventListener("close", () => {
    for (const viewer of viewers) viewer.destroy();
    panes.replaceChildren();
    returnTo.focus();
  }, { once: true });
  dialog.showModal();
}

// The other side follows the leading one, which is the one touched last.
function linkViewers(viewers, isLinked) {
  let leader = viewers[0];
  for (const viewer of viewers) {
    const follow = (act) => { if (isLinked() && leader === viewer) act(viewers.find((other) => other !== viewer)); };
    for (const event of ["pointerdown", "wheel", "keydown", "focusin", "pointerenter"]) {
      viewer.element.addEventListener(event, () => { leader = viewer; }, { capture: true, passive: true });
    }
    viewer.picture.on("moved", () => follow((other) => other.picture.goTo(viewer.picture.view())));
    viewer.window.on((window) => follow((other) => other.window.follow(window)));
    viewer.on(() => follow((other) => other.showBoxes(viewer.hasBoxes, false)));
  }
}
