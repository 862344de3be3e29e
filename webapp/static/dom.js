// Templates, announcements and error messages in the document.
import { address } from "./server.js";

// For screen readers; inside an open dialog, because the rest of the page is inert then.
export function announce(text) {
  const region = document.querySelector("dialog[open] [data-announcer]") ?? document.getElementById("announcer");
  if (region) region.textContent = text;
}

export function cloneTemplate(id) {
  return document.getElementById(id).content.cloneNode(true).firstElementChild;
}

// Shows an error, with a link to the login where that helps; in a new tab, so that nothing here is lost.
export function showError(place, error, prefix = "") {
  place.replaceChildren(`${prefix}${error.message} `);
  if (error.status !== 401) return;
  const link = Object.assign(document.createElement("a"), {
    href: address("login"), target: "_blank", rel: "noopener", textContent: "Log in, then try again",
  });
  place.append(link, ".");
}
