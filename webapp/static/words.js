// Numbers and words as the page says them.
export const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;
export const number = (score) => score.toFixed(2);
export const percent = (share) => `${Math.round(100 * share)} %`;
export const className = (level) => level.replace(" ", "-");

// A probability never reads as a certainty.
export function chance(share) {
  if (share > 0.99) return "> 99 %";
  return share < 0.01 ? "< 1 %" : percent(share);
}

// With a calibration a score is a probability that the box hits; without one it is only a number.
export const scoreText = (score, result) => (result.calibrated ? chance(score) : number(score));
export const thresholdText = (score, result) => (result.calibrated ? percent(score) : number(score));
export const scoreName = (result) => (result.calibrated ? "confidence" : "score");

// Said by a screen reader; within an open dialog, as the rest of the page is silent then.
export function announce(text) {
  const place = document.querySelector("dialog[open] [data-announcer]") ?? document.getElementById("announcer");
  if (place) place.textContent = text;
}

export function copyOf(template) {
  return document.getElementById(template).content.cloneNode(true).firstElementChild;
}
