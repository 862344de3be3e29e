// Types of fracture: what the detector tells of them, and the choice of a reader.
import { cloneTemplate } from "./dom.js";
import { probabilityText } from "./text.js";

// Fills in the folded part below the finding; templates/types.html is the same without a script.
export function fillTypes(part, { types, type, detections }) {
  part("types").hidden = !type;
  if (!type) return;
  part("type-title").textContent = type.title;
  part("type-notice").textContent = type.notice;
  const known = new Map([...part("type-list").children].map((entry) => [entry.dataset.type, entry]));
  part("type-list").replaceChildren(...types.map((kind) => {
    const entry = known.get(kind.name) ?? unlisted(kind.title);
    entry.querySelector(".share").textContent = probabilityText(kind.probability);
    return entry;
  }));
  const typed = detections.filter((box) => box.types?.length);
  part("type-boxes").hidden = typed.length < 2;
  part("type-boxes").replaceChildren(...typed.map(({ number, types: [first] }) => {
    const text = `Box ${number}: ${first.name} ${probabilityText(first.probability)}`;
    return Object.assign(document.createElement("li"), { textContent: text });
  }));
}

// A type that has left the list since; nobody knows its definition any more.
function unlisted(title) {
  const [entry, term, share] = ["div", "dt", "span"].map((name) => document.createElement(name));
  share.className = "share";
  term.append(`${title} `, share);
  entry.append(term);
  return entry;
}

// The choice of a type, "" for unknown; `value` may be one that has left the list.
export function typeChoice(value, label, onChange) {
  const select = cloneTemplate("type-template");
  select.setAttribute("aria-label", label);
  choose(select, value);
  select.addEventListener("change", () => onChange(select.value || null));
  return select;
}

export function choose(select, value) {
  if (value && ![...select.options].some((option) => option.value === value)) select.append(new Option(value, value));
  select.value = value ?? "";
}
