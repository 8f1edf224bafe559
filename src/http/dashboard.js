// Puts the figures of now into the page, every other second while it is seen.
"use strict";
const main = document.querySelector("main");
const lost = document.querySelector("#lost");
let answered = Date.now();

async function refresh() {
  const reading = !getSelection().isCollapsed && main.contains(getSelection().anchorNode);
  if (document.hidden || reading) return;
  try {
    const answer = await fetch("figures", { cache: "no-store", signal: AbortSignal.timeout(8000) });
    if (!answer.ok) throw new Error(answer.statusText);
    const text = await answer.text();
    const open = [...main.querySelectorAll("details[open]")].map((it) => it.id);
    main.innerHTML = text;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    document.title = main.querySelector("[data-title]")?.dataset.title ?? document.title;
    answered = Date.now();
    lost.hidden = true;
  } catch {
    const seconds = Math.round((Date.now() - answered) / 1000);
    lost.textContent = `The server has not answered for ${seconds} s: the figures below are old.`;
    lost.hidden = seconds < 5;
  }
}

async function forever() {
  await refresh();
  setTimeout(forever, 2000);
}
setTimeout(forever, 2000);
document.addEventListener("visibilitychange", refresh);
