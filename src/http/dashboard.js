// Puts the figures of now into the page, every other second while it is seen.
"use strict";
const main = document.querySelector("main");
const lost = document.querySelector("#lost");
let answered = Date.now();

// Whether text of the page is selected, which new figures would take away.
function isReading() {
  const selection = getSelection();
  return !selection.isCollapsed && selection.getRangeAt(0).intersectsNode(main);
}

async function refresh() {
  if (document.hidden || isReading()) return;
  try {
    const answer = await fetch("figures", { cache: "no-store", signal: AbortSignal.timeout(8000) });
    if (!answer.ok) throw new Error(answer.statusText);
    const text = await answer.text();
    answered = Date.now();
    lost.hidden = true;
    if (isReading()) return;
    const focused = main.contains(document.activeElement) ? document.activeElement.id : "";
    const open = [...main.querySelectorAll("details[open]")].map((it) => it.id);
    main.innerHTML = text;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    document.title = main.querySelector("[data-title]")?.dataset.title ?? document.title;
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
