// The upload page and the page of one result.
import { acceptFiles } from "./upload.js";
import { openResult } from "./viewer.js";

document.documentElement.classList.add("scripted");

const form = document.getElementById("upload");
if (form) {
  acceptFiles(form, document.getElementById("results"), document.getElementById("announcer"));
}
for (const place of document.querySelectorAll("[data-result]")) {
  openResult(place);
}
