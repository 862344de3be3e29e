// Each file is its own request, with its own progress and its own result or refusal.
import { show } from "./viewer.js";

const AT_ONCE = 3;
const MAX_RETRIES = 20;
const LOST = "The connection to the server was lost. This file was not analysed; please try again.";
const ODD = "The server gave an answer that cannot be read. This file was not analysed.";

export function acceptFiles(form, results, announcer) {
  const queue = [];
  let running = 0;
  const next = () => {
    while (running < AT_ONCE && queue.length) {
      running += 1;
      queue.shift()().finally(() => { running -= 1; next(); });
    }
  };
  const add = (files) => {
    for (const file of files) {
      const job = newJob(results, file.name || "Pasted image");
      queue.push(() => analyse(file, form.dataset, job, announcer));
    }
    next();
  };
  listen(form, add);
}

function listen(form, add) {
  const input = form.querySelector("input[type=file]");
  input.addEventListener("change", () => { add(input.files); input.value = ""; });
  form.addEventListener("submit", (event) => event.preventDefault());
  let depth = 0;
  const mark = () => form.classList.toggle("over", depth > 0);
  addEventListener("dragenter", () => { depth += 1; mark(); });
  addEventListener("dragleave", () => { depth -= 1; mark(); });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => { event.preventDefault(); depth = 0; mark(); add(event.dataTransfer.files); });
  addEventListener("paste", (event) => { if (event.clipboardData.files.length) add(event.clipboardData.files); });
}

function newJob(results, name) {
  const article = document.getElementById("job-template").content.cloneNode(true).firstElementChild;
  const part = (key) => article.querySelector(`[data-part="${key}"]`);
  article.querySelector(".name").textContent = name;
  part("meter").setAttribute("aria-label", `Progress of ${name}`);
  part("state").textContent = "Waiting";
  part("dismiss").addEventListener("click", () => article.remove());
  results.append(article);
  return { article, part, name };
}

async function analyse(file, settings, job, announcer) {
  try {
    if (file.size > Number(settings.maxBytes)) {
      throw new Error(`This file was not analysed. It is larger than ${settings.maxMb} MB; please export a smaller image.`);
    }
    const result = await sendUntilTaken(file, `${settings.api}?score=${settings.floor}`, job);
    job.part("state").textContent = result.finding.title;
    job.part("state").classList.add(result.finding.level.replace(" ", "-"));
    show(job.part("viewer"), result);
    job.article.classList.add("done");
    announcer.textContent = `${job.name}: ${result.finding.title}.`;
  } catch (error) {
    job.part("state").textContent = "Not analysed";
    job.part("failure-text").textContent = error.message;
    job.part("failure").hidden = false;
    job.article.classList.add("failed-job");
    announcer.textContent = `${job.name}: not analysed. ${error.message}`;
  } finally {
    job.part("meter").remove();
  }
}

async function sendUntilTaken(file, url, job) {
  for (let attempt = 0; ; attempt += 1) {
    const { status, body, retryAfter } = await send(file, url, job);
    if (status === 201 && body && body.ok) return body;
    if (status !== 503 || attempt >= MAX_RETRIES) throw new Error(body && body.error ? body.error : ODD);
    job.part("state").textContent = "Server busy, waiting for a place";
    await new Promise((resolve) => setTimeout(resolve, 1000 * (Number(retryAfter) || 3)));
  }
}

function send(file, url, job) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const meter = job.part("meter");
    request.open("POST", url);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      if (!event.lengthComputable) return;
      meter.value = (100 * event.loaded) / event.total;
      job.part("state").textContent = `Uploading ${Math.round(meter.value)} %`;
    });
    request.upload.addEventListener("load", () => {
      meter.removeAttribute("value");
      job.part("state").textContent = "Analysing";
    });
    request.addEventListener("load", () => resolve({
      status: request.status, body: request.response, retryAfter: request.getResponseHeader("Retry-After"),
    }));
    for (const kind of ["error", "abort", "timeout"]) {
      request.addEventListener(kind, () => reject(new Error(LOST)));
    }
    const body = new FormData();
    body.append("file", file, "radiograph"); // the file's own name stays on this machine
    request.send(body);
  });
}
