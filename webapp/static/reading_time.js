// How long a result was in view: only while the page is visible and the result is on the screen.
const MAX_S = 3600; // as the server has it; what took longer was left lying

// A clock that runs and stands still; `now` is in ms. No DOM in here.
export class Stopwatch {
  constructor(seconds = 0, now = () => performance.now()) { Object.assign(this, { before: seconds, since: null, now }); }

  run(isRunning) {
    if (isRunning === (this.since !== null)) return;
    this.before = this.#total();
    this.since = isRunning ? this.now() : null;
  }

  // To a tenth of a second, and an hour at most.
  get seconds() { return Math.min(Math.round(10 * this.#total()) / 10, MAX_S); }

  #total() { return this.before + (this.since === null ? 0 : (this.now() - this.since) / 1000); }
}

// Lets a stopwatch run while `element` can be seen; returns what ends that.
export function runWhileInView(stopwatch, element) {
  let isOnScreen = false;
  const update = () => stopwatch.run(isOnScreen && document.visibilityState === "visible");
  const observer = new IntersectionObserver((entries) => { isOnScreen = entries.at(-1).isIntersecting; update(); });
  observer.observe(element);
  document.addEventListener("visibilitychange", update);
  return () => {
    observer.disconnect();
    document.removeEventListener("visibilitychange", update);
    stopwatch.run(false);
  };
}
