// What the pages need beside the theme: keyboard access, confirmation, live polling, charts.
"use strict";

htmx.config.allowEval = false;
htmx.config.includeIndicatorStyles = false;
htmx.config.allowScriptTags = false;
// The theme's links beside a title ask whether their menu is open, also where they have none.
globalThis.actionDropdownOpen = false;

const ready = (work) =>
  document.readyState === "loading"
    ? document.addEventListener("DOMContentLoaded", work)
    : work();

// Keyboard and screen readers: the theme's click-only elements, landmarks, labels, dialogs.

const CLICK_ONLY = "span[x-on\\:click], div[x-on\\:click], h2[x-on\\:click], a[x-on\\:click]:not([href])";
const NAMES = { dock_to_right: "Show or hide the sidebar", close: "Close", unfold_more: "Account" };

function makeFocusable(element) {
  if (element.matches("button, input, [tabindex]") || element.hasAttribute("x-on:click.outside")) return;
  element.tabIndex = 0;
  if (!element.matches("h1, h2, h3")) element.setAttribute("role", "button");
  const symbol = element.textContent.trim();
  if (NAMES[symbol]) element.setAttribute("aria-label", NAMES[symbol]);
  element.addEventListener("keydown", (event) => {
    if (event.target === element && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      element.click();
    }
  });
}

function labelNamelessInputs(root) {
  for (const field of root.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (field.labels?.length || field.getAttribute("aria-label") || field.title) continue;
    const cell = field.closest("td");
    const heading = cell && cell.closest("table")?.querySelectorAll("thead th")[cell.cellIndex];
    const name = heading?.textContent.trim() || field.placeholder || field.name.split("-").pop();
    if (name) field.setAttribute("aria-label", name.replaceAll("_", " "));
  }
}

function addLandmarks() {
  const content = document.getElementById("content");
  if (content) {
    content.setAttribute("role", "main");
    content.tabIndex = -1;
    const skip = Object.assign(document.createElement("a"), {
      href: "#content", className: "ls-skip", textContent: "Skip to the content",
    });
    document.body.prepend(skip);
  }
  document.getElementById("nav-sidebar")?.setAttribute("aria-label", "Main");
  const modal = document.getElementById("modal-content");
  if (modal) {
    modal.setAttribute("role", "dialog");
    modal.setAttribute("aria-modal", "true");
    modal.tabIndex = -1;
    modal.addEventListener("htmx:afterSwap", () => modal.focus());
  }
}

function improve(root) {
  root.querySelectorAll(CLICK_ONLY).forEach(makeFocusable);
  labelNamelessInputs(root);
}

// The theme takes every settled form for a page of an inline; only those say which one they are.

document.addEventListener("htmx:afterSettle", (event) => {
  if (!event.target.dataset?.inlineFormset) event.stopImmediatePropagation();
});

// Confirmation: a form with data-ls-confirm asks before it is sent.

function ask(question, label) {
  const dialog = document.createElement("dialog");
  dialog.className = "ls-dialog";
  dialog.setAttribute("aria-labelledby", "ls-dialog-title");
  const title = Object.assign(document.createElement("h2"), { id: "ls-dialog-title", textContent: label });
  const text = Object.assign(document.createElement("p"), { textContent: question });
  const row = Object.assign(document.createElement("form"), { className: "ls-row", method: "dialog" });
  const cancel = Object.assign(document.createElement("button"), {
    className: "ls-btn", value: "no", textContent: "Cancel",
  });
  const confirm = Object.assign(document.createElement("button"), {
    className: "ls-btn ls-btn-primary", value: "yes", textContent: label,
  });
  row.append(cancel, confirm);
  dialog.append(title, text, row);
  document.body.append(dialog);
  dialog.showModal();
  confirm.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes");
      dialog.remove();
    });
  });
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.dataset.lsConfirmed) return;
  const asking = event.submitter?.dataset.lsConfirm ? event.submitter : form;
  const question = asking.dataset.lsConfirm;
  if (!question) return;
  event.preventDefault();
  if (await ask(question, asking.dataset.lsConfirmLabel || "Go on")) {
    form.dataset.lsConfirmed = "yes";
    form.requestSubmit(event.submitter);
  }
}, true);

// Live parts: data-ls-poll asks again after 2 s, later less often; never in a hidden tab; ends
// with HTTP 286.

const FIRST_DELAY = 2000;
const LAST_DELAY = 10000;

function poll(element) {
  let delay = FIRST_DELAY;
  const tick = () => {
    if (!element.isConnected || element.dataset.lsPoll === "done") return;
    if (document.visibilityState === "visible") htmx.trigger(element, "ls:poll");
    else schedule();
  };
  const schedule = () => {
    setTimeout(tick, delay);
    delay = Math.min(LAST_DELAY, delay * 1.15);
  };
  element.addEventListener("htmx:afterRequest", (event) => {
    if (event.target !== element) return;
    if (event.detail.xhr.status === 286) element.dataset.lsPoll = "done";
    else schedule();
  });
  schedule();
}

// Charts: data in a JSON script element, the same numbers in the table beside them.

function drawChart(canvas) {
  const data = JSON.parse(document.getElementById(canvas.dataset.lsChart).textContent);
  const styles = getComputedStyle(canvas);
  Chart.defaults.color = styles.getPropertyValue("--ls-text");
  Chart.defaults.font.family = styles.fontFamily;
  const axis = (extra) => ({
    stacked: true, grid: { color: styles.getPropertyValue("--ls-line") }, ...extra,
  });
  return new Chart(canvas, {
    type: "bar",
    data,
    options: {
      responsive: true, maintainAspectRatio: false, animation: false,
      plugins: { legend: { position: "top", align: "end", labels: { boxWidth: 12 } } },
      scales: { x: axis({ grid: { display: false } }), y: axis({ ticks: { precision: 0 }, beginAtZero: true }) },
    },
  });
}

function drawCharts() {
  for (const canvas of document.querySelectorAll("canvas[data-ls-chart]")) {
    let chart = drawChart(canvas);
    new MutationObserver(() => {
      chart.destroy();
      chart = drawChart(canvas);
    }).observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });
  }
}

// Small conveniences.

function followLog(root) {
  for (const log of root.querySelectorAll("[data-ls-follow]")) log.scrollTop = log.scrollHeight;
}

function filterOptions(event) {
  const list = document.getElementById(event.target.dataset.lsFilter);
  const wanted = event.target.value.trim().toLowerCase();
  for (const option of list.querySelectorAll("[data-ls-text]")) {
    option.hidden = !option.dataset.lsText.toLowerCase().includes(wanted);
  }
}

function revealFor(event) {
  const row = event.target.closest("[data-ls-row]");
  if (!row) return;
  for (const part of row.querySelectorAll("[data-ls-when]")) {
    part.hidden = !part.dataset.lsWhen.split(" ").includes(event.target.value.split(":")[0]);
  }
}

// Fields of a rule that only one choice needs: the field, the choice's own field, the choice.

const NEEDED_BY = [
  ["every_minutes", "schedule_kind", "every"],
  ["daily_at", "schedule_kind", "daily"],
  ["cron", "schedule_kind", "cron"],
  ["cursor_field", "delta", "cursor"],
  ["cursor_lag_seconds", "delta", "cursor"],
  ["sweep_minutes", "delta", "cursor"],
  ["right_cursor_field", "direction", "two_way"],
];

function showNeeded() {
  for (const [name, choice, value] of NEEDED_BY) {
    const chosen = document.querySelector(`select[name=${choice}]`);
    const part = document.querySelector(`[name=${name}]`)?.closest(".field-line, .ls-field");
    if (!chosen || !part) continue;
    const wrong = part.querySelector("[aria-invalid], .errorlist, .ls-error");
    part.classList.toggle("ls-not-needed", chosen.value !== value && !wrong);
  }
}

document.addEventListener("change", (event) => {
  if (NEEDED_BY.some(([, choice]) => choice === event.target.name)) showNeeded();
});

document.addEventListener("input", (event) => {
  if (event.target.dataset?.lsFilter) filterOptions(event);
});
document.addEventListener("change", (event) => {
  if (event.target.hasAttribute?.("data-ls-reveal")) revealFor(event);
});

ready(() => {
  addLandmarks();
  improve(document.body);
  showNeeded();
  followLog(document);
  document.querySelectorAll("[data-ls-poll]").forEach(poll);
  drawCharts();
  document.body.addEventListener("htmx:afterSwap", (event) => {
    improve(event.target);
    followLog(event.target);
  });
});

// Mapping editor: taking a suggestion is choosing it in its row.

function useSuggestion(button) {
  const select = button.closest("[data-ls-row]").querySelector("select");
  select.value = button.dataset.lsUse;
  select.dispatchEvent(new Event("change", { bubbles: true }));
  button.parentElement.remove();
}

document.addEventListener("click", (event) => {
  const one = event.target.closest("[data-ls-use]");
  if (one) useSuggestion(one);
  const all = event.target.closest("[data-ls-use-all]");
  if (all) {
    document.querySelectorAll("[data-ls-use]").forEach(useSuggestion);
    all.remove();
  }
});

// Copying a permalink: data-ls-copy says what; the button says that it is done.

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-ls-copy]");
  if (!button) return;
  const words = button.querySelector("[aria-live]");
  try {
    await navigator.clipboard.writeText(button.dataset.lsCopy);
    words.textContent = "Copied";
  } catch {
    words.textContent = button.dataset.lsCopy;
  }
});
