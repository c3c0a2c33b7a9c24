// Small conveniences. Every screen works without them.
"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  const live = document.getElementById("live");
  const say = (words) => {
    if (!live) return;
    live.textContent = "";
    // Screen readers would not announce a change that follows at once.
    setTimeout(() => { live.textContent = words; }, 50);
  };

  const textOf = (source) => ("value" in source && source.tagName !== "BUTTON" ? source.value : source.textContent).trim();

  const copy = async (text, source) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // Without a secure context there is no clipboard API: select the text and let the browser copy it.
      const range = document.createRange();
      range.selectNodeContents(source);
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      return document.execCommand("copy");
    }
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const source = document.getElementById(button.dataset.copy);
    const label = button.querySelector(".copy-label") ?? button;
    const before = button.dataset.label ?? label.textContent;
    button.dataset.label = before;
    const done = await copy(textOf(source), source);
    label.textContent = done ? "Copied" : "Press Ctrl+C";
    button.classList.toggle("is-done", done);
    say(done ? `${button.dataset.what ?? "Text"} copied` : "Selected; press Control C to copy");
    clearTimeout(button.timer);
    button.timer = setTimeout(() => {
      label.textContent = before;
      button.classList.remove("is-done");
    }, 2000);
  });

  // Prevent a second click on a button that creates something.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.method !== "post" || event.defaultPrevented) return;
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
    for (const button of form.querySelectorAll("button")) button.setAttribute("aria-disabled", "true");
  });
  // A secret or a result is shown once. Back and Reload get the page without it, and do not send the form again.
  const once = document.querySelector("[data-once]");
  if (once) history.replaceState(null, "", once.dataset.once);

  // A form that was kept over a sign-in.
  document.querySelector("form[data-resume]")?.requestSubmit();

  addEventListener("pageshow", (event) => {
    if (event.persisted && once) location.reload();
    for (const form of document.forms) {
      delete form.dataset.sent;
      for (const button of form.querySelectorAll("[aria-disabled]")) button.removeAttribute("aria-disabled");
    }
  });

  // Times are in UTC. The local time is in the tooltip.
  for (const time of document.querySelectorAll("time[datetime]")) {
    const date = new Date(time.dateTime);
    if (!Number.isNaN(date.valueOf())) time.title = date.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
  }
})();
