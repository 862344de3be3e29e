// Numbers and counts as the page writes them. No DOM in here: the unit tests run it in Node.
export const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;
export const number = (score) => score.toFixed(2);
export const percent = (share) => `${Math.round(100 * share)} %`;
export const className = (level) => level.replace(" ", "-");

// A probability is never shown as a certainty.
export function probabilityText(share) {
  if (share > 0.99) return "> 99 %";
  return share < 0.01 ? "< 1 %" : percent(share);
}

// With a calibration a score is the probability that the box is right; without one it is only a number.
export const scoreText = (score, result) => (result.calibrated ? probabilityText(score) : number(score));
export const thresholdText = (score, result) => (result.calibrated ? percent(score) : number(score));
export const scoreName = (result) => (result.calibrated ? "confidence" : "score");
