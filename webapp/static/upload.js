// Each file is a request of its own, with its own progress and its own result or error.
import { announce } from "./dom.js";
import { listenForFiles } from "./files.js";
import { NO_RETRIES, nextStep } from "./job_state.js";
import { Job } from "./jobs.js";
import { ServerError, changeHeaders, fetchJson, newIdempotencyKey, suspectToken } from "./server.js";
import { recall } from "./session.js";
import { plural } from "./text.js";
import { Worklist } from "./worklist.js";

const MAX_PARALLEL = 3;
const UNFINISHED = "This file was not analysed: the page was loaded anew before it was. Please choose it again.";

// Returns the worklist.
export function acceptFiles(form) {
  const queue = [];
  let running = 0;
  const runNext = () => {
    while (running < MAX_PARALLEL && queue.length) {
      running += 1;
      const job = queue.shift();
      (job.self ? load(job) : analyse(job, form.dataset)).finally(() => { running -= 1; runNext(); });
    }
  };
  const start = (job) => { queue.push(job); runNext(); };
  const list = new Worklist({ retry: (job) => { job.restart(); start(job); } });
  const accept = (files, skipped) => {
    if (skipped !== null) showSkipped(files.length, skipped);
    // One key for each, so that a retry is not a second analysis.
    const jobs = files.map(({ file, name }) => new Job(name, { file, key: newIdempotencyKey(), list }));
    list.add(jobs);
    jobs.forEach(start);
  };
  restore(list, recall(), start);
  listenForFiles(form, accept, showFolderMessage);
  document.getElementById("example").addEventListener("click", ({ target }) => tryExample(target, accept));
  return list;
}

// What this tab showed before a reload: results are fetched again, and what had none is said to have none.
function restore(list, saved, start) {
  if (!saved) return;
  document.getElementById("worklist-unread").checked = saved.onlyUnread;
  const jobs = saved.jobs.map(({ name, self, isRead }) => new Job(name, { self, isRead, list }));
  list.add(jobs);
  if (jobs[saved.chosen]) list.choose(jobs[saved.chosen]);
  jobs.forEach((job, index) => {
    if (job.self) start(job); else job.fail(new ServerError(saved.jobs[index].error ?? UNFINISHED));
  });
}

async function load(job) {
  if (job.state === "removed") return;
  await fetchJson("GET", `${job.self}?score=0`).then((result) => job.succeed(result, "open"), (error) => job.fail(error));
}

async function tryExample(button, accept) {
  button.disabled = true;
  try {
    const response = await fetch(button.dataset.url);
    if (!response.ok) throw new ServerError(`The example could not be loaded (${response.status}).`);
    accept([{ file: await response.blob(), name: "Example: FracAtlas IMG0003943" }], null);
  } catch {
    showFolderMessage("The example could not be loaded; please try again.");
  } finally {
    button.disabled = false;
  }
}

function showSkipped(added, skipped) {
  if (skipped) {
    const left = `${plural(skipped, "file", "files")} in the folder ${skipped === 1 ? "is" : "are"}`;
    showFolderMessage(`${left} not JPEG, PNG or DICOM and skipped; ${added} added.`);
  } else {
    showFolderMessage(added ? "" : "The folder is empty.");
  }
}

function showFolderMessage(text) {
  const place = document.getElementById("skipped");
  place.hidden = !text;
  place.textContent = text;
  if (text) announce(text);
}

async function analyse(job, { api, maxBytes, maxMb }) {
  if (job.state === "removed") return;
  if (job.file.size > Number(maxBytes)) {
    job.fail(new ServerError(`This file was not analysed. It is larger than ${maxMb} MB; please export a smaller image.`, 413));
    return;
  }
  for (let retries = NO_RETRIES; ;) {
    const step = nextStep(retries, await send(job, `${api}?score=0${job.isForced ? "&force=1" : ""}`));
    if (step.result) { job.succeed(step.result); return; }
    if (step.error) { job.fail(step.error); return; }
    job.on("delay");
    if (step.text) job.showState(step.text);
    await pause(step.wait_s);
    if (job.state === "removed") return;
    retries = step.retries;
  }
}

const pause = (time_s) => new Promise((resolve) => { setTimeout(resolve, 1000 * time_s); });

// The response to an upload, or null if the connection was lost. fetch() cannot tell how far an upload is.
async function send(job, url) {
  const headers = { ...await changeHeaders(), "Idempotency-Key": job.key };
  job.on("send");
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.responseType = "json";
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => {
      if (!event.lengthComputable || job.state !== "uploading") return;
      job.showProgress(event.loaded / event.total);
      job.showState(`Uploading ${Math.round((100 * event.loaded) / event.total)} %`);
    });
    request.upload.addEventListener("load", () => {
      job.on("upload");
      job.showProgress(null);
      job.showState("Analysing");
    });
    request.addEventListener("load", () => resolve({
      status: request.status,
      body: request.response,
      retryAfter: request.getResponseHeader("Retry-After"),
      isTokenSuspect: suspectToken(request.status),
    }));
    for (const event of ["error", "abort", "timeout"]) request.addEventListener(event, () => resolve(null));
    const body = new FormData();
    body.append("file", job.file, "radiograph"); // the file's own name stays on this machine
    request.send(body);
  });
}
