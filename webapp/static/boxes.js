// Boxes on the image and in the list.
import { cloneTemplate } from "./dom.js";
import { scoreName, scoreText } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";

export function rectangle([x0, y0, x1, y1], kind, key) {
  const group = document.createElementNS(SVG, "g");
  group.setAttribute("class", kind);
  if (key) group.dataset.number = key;
  for (const line of ["halo", "line"]) {
    const rect = document.createElementNS(SVG, "rect");
    const sides = { x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: line };
    for (const [name, value] of Object.entries(sides)) rect.setAttribute(name, value);
    group.append(rect);
  }
  return group;
}

// Handles at the corners of a box that can be dragged; of one size on the screen, as they are dots of lines without length.
export function corners([x0, y0, x1, y1]) {
  const group = document.createElementNS(SVG, "g");
  group.setAttribute("class", "handles");
  for (const [x, y] of [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) {
    const dot = document.createElementNS(SVG, "line");
    for (const [name, value] of Object.entries({ x1: x, y1: y, x2: x, y2: y })) dot.setAttribute(name, value);
    group.append(dot);
  }
  return group;
}

export function tag([x0, y0], kind, text, { width, height }, key) {
  const label = document.createElement("span");
  label.className = kind;
  if (key) label.dataset.number = key;
  label.textContent = text;
  label.style.left = `${(100 * x0) / width}%`;
  label.style.top = `${(100 * y0) / height}%`;
  if (y0 < 0.06 * height) label.classList.add("inside");
  return label;
}

export function listItem(box, result, onChoose) {
  const item = cloneTemplate("box-template");
  const button = item.querySelector("button.box");
  button.dataset.number = box.number;
  item.classList.add(box.level);
  const score = scoreText(box.score, result);
  const texts = { number: box.number, label: box.label, score, level: box.level };
  for (const [name, text] of Object.entries(texts)) item.querySelector(`.${name}`).textContent = text;
  button.setAttribute("aria-label", `Box ${box.number}: ${box.label}, ${box.level}, ${score} ${scoreName(result)}`);
  button.addEventListener("click", onChoose);
  for (const verdict of item.querySelectorAll("[data-verdict]")) {
    verdict.dataset.box = box.number;
    verdict.setAttribute("aria-label", `Box ${box.number} is ${verdict.dataset.verdict}`);
  }
  const move = item.querySelector("[data-move]");
  move.dataset.move = box.number;
  move.setAttribute("aria-label", `Move or resize box ${box.number}`);
  return item;
}
