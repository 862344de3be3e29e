// The worklist of this tab, for after a reload: names, identifiers and what was read, on this machine and until the tab is
// closed or somebody logs out. Another account's list is deleted.
const PREFIX = "worklist of ";

const storageKey = () => PREFIX + (document.querySelector("meta[name=account]")?.content ?? "");

// What cannot be kept, in a browser that forbids it, is only missing after a reload.
function trying(act) {
  try { return act(); } catch { return null; }
}

export function remember(list) {
  trying(() => sessionStorage.setItem(storageKey(), JSON.stringify(list)));
}

export function recall() {
  return trying(() => {
    for (const key of Object.keys(sessionStorage)) {
      if (key.startsWith(PREFIX) && key !== storageKey()) sessionStorage.removeItem(key);
    }
    return JSON.parse(sessionStorage.getItem(storageKey()));
  });
}

// A result that was deleted on a page of its own.
export function forget(self) {
  const list = recall();
  if (!list) return;
  const chosen = list.jobs[list.chosen];
  const jobs = list.jobs.filter((job) => job.self !== self);
  remember({ ...list, jobs, chosen: jobs.indexOf(chosen) });
}

export function forgetAtLogout() {
  document.querySelector("form.out")?.addEventListener("submit", () => trying(() => sessionStorage.removeItem(storageKey())));
}
