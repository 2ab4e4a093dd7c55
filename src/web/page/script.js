"use strict";
// Without this script the pages work, and show the state of their loading.
const live = document.getElementById("live");
const events = new EventSource("/events");
events.onopen = () => { live.textContent = "live"; };
events.onerror = () => { live.textContent = "no connection"; };
events.addEventListener("change", async () => {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const main = document.querySelector("main");
  for (const open of main.querySelectorAll("details")) {
    const next = page.getElementById(open.id);
    if (next) next.open = open.open;
  }
  main.replaceWith(page.querySelector("main"));
});
