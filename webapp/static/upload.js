// Each file is its own request, with its own progress and its own result or refusal.
import { listenForFiles } from "./files.js";
import { Job } from "./jobs.js";
import { LOST, changeHeaders, doubtsToken, errorOf, newKey, ServerError } from "./server.js";
import { announce, plural } from "./words.js";

const AT_ONCE = 3;
const MAX_RETRIES = 20;
const LOST_RETRIES = 1;
const OPEN_AT_MOST = 6; // more files than these come folded
const BUSY = [429, 503];
const FINAL = [400, 404, 405, 413, 415, 422];

export function acceptFiles(form, results) {
  const jobs = new Set();
  const queue = [];
  let running = 0;
  const next = () => {
    while (running < AT_ONCE && queue.length) {
      running += 1;
      queue.shift()().finally(() => { running -= 1; next(); });
    }
  };
  const start = (job) => {
    queue.push(() => (job.state === "gone" ? Promise.resolve() : analyse(job, form.dataset)));
    next();
  };
  const summary = document.getElementById("summary");
  const tally = () => { summary.textContent = sum([...jobs].filter((job) => job.state !== "gone")); };
  listenForFiles(form, (files, leftOut) => {
    if (leftOut !== null) sayLeftOut(files.length, leftOut);
    const isOpen = jobs.size + files.length <= OPEN_AT_MOST;
    for (const { file, name } of files) {
      const job = new Job(results, name, { isOpen, onChange: tally, onRetry: (again) => { again.restart(); start(again); } });
      Object.assign(job, { file, key: newKey() }); // the key stays, so that a second try is not a second analysis
      jobs.add(job);
      start(job);
    }
    tally();
  }, tellOfFolder);
}

function sayLeftOut(taken, leftOut) {
  if (leftOut) {
    const are = leftOut === 1 ? "is" : "are";
    tellOfFolder(`${plural(leftOut, "file", "files")} in the folder ${are} of another kind and not sent; ${taken} taken.`);
  } else {
    tellOfFolder(taken ? "" : "The folder is empty.");
  }
}

function tellOfFolder(words) {
  const place = document.getElementById("left-out");
  place.hidden = !words;
  place.textContent = words;
  if (words) announce(words);
}

// "7 of 12 done: 3 likely, 1 possible, 2 none seen, 1 not analysed"
function sum(jobs) {
  if (jobs.length < 2) return "";
  const count = (state) => jobs.filter((job) => job.state === state).length;
  const words = { likely: "likely", possible: "possible", "none seen": "none seen", failed: "not analysed" };
  const said = Object.keys(words).filter(count).map((state) => `${count(state)} ${words[state]}`).join(", ");
  return `${jobs.length - count("waiting")} of ${jobs.length} done${said ? `: ${said}` : ""}`;
}

async function analyse(job, settings) {
  const result = await ask(job, settings).catch((error) => {
    job.fail(Object.assign(error, { mayPass: !FINAL.includes(error.status) }));
  });
  if (!result || job.state === "gone") return;
  job.file = null;
  job.succeed(result);
}

async function ask(job, settings) {
  if (job.file.size > Number(settings.maxBytes)) {
    throw new ServerError(`This file was not analysed. It is larger than ${settings.maxMb} MB; please export a smaller image.`, 413);
  }
  return sendUntilTaken(job, `${settings.api}?score=0`);
}

async function sendUntilTaken(job, url) {
  for (let attempt = 0, lost = 0, isRenewed = false; ; attempt += 1) {
    try {
      const { status, body, retryAfter } = await send(job, url);
      if ([200, 201].includes(status) && body?.ok) return body;
      if (doubtsToken(status) && !isRenewed) {
        isRenewed = true;
        continue;
      }
      if (!BUSY.includes(status) || attempt >= MAX_RETRIES) throw notAnalysed(errorOf(status, body));
      job.say("Server busy, waiting for a place");
      await pause(Number(retryAfter) || 3);
    } catch (error) {
      if (error.message !== LOST) throw error;
      lost += 1;
      if (lost > LOST_RETRIES) throw new ServerError(`${LOST} This file was not analysed; please try again.`);
      job.say("Connection lost, trying again");
      await pause(1);
    }
  }
}

const pause = (time_s) => new Promise((resolve) => { setTimeout(resolve, 1000 * time_s); });

// The server's own sentences say so already; an unreadable answer and a logout do not.
function notAnalysed(error) {
  if (!/not analysed/i.test(error.message)) error.message += " This file was not analysed.";
  return error;
}

async function send(job, url) {
  const headers = { ...await changeHeaders(), "Idempotency-Key": job.key };
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.responseType = "json";
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => {
      if (!event.lengthComputable) return;
      job.progress(event.loaded / event.total);
      job.say(`Uploading ${Math.round((100 * event.loaded) / event.total)} %`);
    });
    request.upload.addEventListener("load", () => { job.progress(null); job.say("Analysing"); });
    request.addEventListener("load", () => resolve({
      status: request.status, body: request.response, retryAfter: request.getResponseHeader("Retry-After"),
    }));
    for (const kind of ["error", "abort", "timeout"]) {
      request.addEventListener(kind, () => reject(new ServerError(LOST)));
    }
    const body = new FormData();
    body.append("file", job.file, "radiograph"); // the file's own name stays on this machine
    request.send(body);
  });
}
