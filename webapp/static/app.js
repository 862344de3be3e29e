// The upload page, the page of one result, and any page with buttons to compare results.
import { listenToCompare } from "./compare.js";
import { confirmDelete } from "./jobs.js";
import { listenToKeys } from "./keys.js";
import { address } from "./server.js";
import { addToList, forget, forgetAtLogout } from "./session.js";
import { acceptFiles } from "./upload.js";
import { openResult } from "./viewer.js";

document.documentElement.classList.add("scripted");

const form = document.getElementById("upload");
const list = form ? acceptFiles(form) : null;
for (const place of document.querySelectorAll("[data-result]")) openResult(place);
for (const button of document.querySelectorAll("[data-delete]")) {
  const { delete: url, name } = button.dataset;
  const leave = () => {
    forget(url);
    location.href = address("");
  };
  button.addEventListener("click", () => confirmDelete(name, url, leave));
}
document.getElementById("to-worklist")?.addEventListener("click", () => {
  const entries = [...document.querySelectorAll("[data-self]")].map(({ dataset: { name, self } }) => ({ name, self }));
  if (addToList(entries)) location.href = address("");
  else document.getElementById("to-worklist-failed").hidden = false;
});
listenToCompare();
listenToKeys(list);
forgetAtLogout();
