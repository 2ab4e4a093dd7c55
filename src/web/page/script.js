"use strict";
// Without this script the pages work, and show the state of their loading.
const REOPEN_WAIT = 15000;
const live = document.getElementById("live");
let stream = null;
let reopening = 0;
let asked = 0;

function openStream() {
  clearTimeout(reopening);
  if (stream || document.hidden) return;
  stream = new EventSource("/events");
  stream.onopen = () => { live.textContent = "live"; };
  stream.onerror = () => {
    live.textContent = "no connection";
    // The browser connects again by itself, except after a refusal.
    if (!stream || stream.readyState !== EventSource.CLOSED) return;
    closeStream();
    reopening = setTimeout(openStream, REOPEN_WAIT);
  };
  stream.addEventListener("change", renew);
}

// A hidden page leaves its stream to others.
function closeStream() {
  clearTimeout(reopening);
  if (stream) stream.close();
  stream = null;
}

async function renew() {
  asked += 1;
  const number = asked;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    const text = await answer.text();
    // A later answer may have been faster.
    if (!answer.ok || number !== asked) return;
    show(new DOMParser().parseFromString(text, "text/html"));
  } catch {
    live.textContent = "no connection";
  }
}

function show(page) {
  const [main, next] = [document, page].map((part) => part.querySelector("main"));
  for (const details of main.querySelectorAll("details")) {
    const same = page.getElementById(details.id);
    if (same) same.open = details.open;
  }
  main.replaceWith(next);
}

document.addEventListener("visibilitychange", () => (document.hidden ? closeStream() : openStream()));
openStream();
