// The conflict inbox by keyboard: J/K between conflicts, arrows between fields, 1/2 and E choose,
// Enter decides, ? shows the keys. Without this script everything works by mouse and Tab.
"use strict";

(() => {
  const inbox = () => document.querySelector("[data-ls-decide]");
  const fields = () => [...document.querySelectorAll("[data-ls-decide] [data-ls-field]")];
  const dialog = () => document.getElementById("ls-keys");

  const target = (field) =>
    field.matches("button") ? field : field.querySelector("input:checked") || field.querySelector("input");
  const current = () => fields().find((field) => field.contains(document.activeElement));

  function focusField(step, options) {
    const all = fields();
    if (!all.length) return;
    const place = all.indexOf(current());
    const next = place < 0 ? 0 : Math.min(all.length - 1, Math.max(0, place + step));
    target(all[next])?.focus(options);
  }

  function choose(field, value) {
    const input = field?.querySelector(`input[type=radio][value="${value}"]`);
    if (!input) return false;
    input.checked = true;
    input.focus();
    return true;
  }

  // In a list of whole choices (buttons, records that it may be) 1 and 2 are the first and second.
  function chooseOne(number, everywhere) {
    const side = number === 1 ? "left" : "right";
    const byField = fields().filter((field) => field.matches("[role=radiogroup]"));
    if (byField.length) {
      const chosen = everywhere || !current() ? byField : [current()];
      if (!everywhere && !current() && byField.length > 1) return focusField(0);
      return chosen.forEach((field) => choose(field, side));
    }
    const field = fields()[number - 1];
    if (!field) return undefined;
    const input = target(field);
    if (input.matches("input")) input.checked = true;
    return input.focus();
  }

  function typeOwn() {
    const field = current() || fields().find((one) => one.querySelector("[data-ls-own]"));
    if (!field || !choose(field, "own")) return;
    const text = field.querySelector("[data-ls-own-text]");
    text.focus();
    text.select();
  }

  function undecided() {
    return fields().find(
      (field) => field.matches("[role=radiogroup]") && !field.querySelector("input[type=radio]:checked"),
    );
  }

  function decide(event) {
    const form = inbox();
    if (!form || document.activeElement?.matches("button, a, summary")) return;
    event.preventDefault();
    const missing = undecided();
    if (missing) target(missing).focus();
    else if (form.querySelector("[data-ls-primary]")) form.requestSubmit(form.querySelector("[data-ls-primary]"));
  }

  const KEYS = {
    j: () => document.querySelector("[data-ls-key=j]")?.click(),
    k: () => document.querySelector("[data-ls-key=k]")?.click(),
    arrowdown: () => focusField(1),
    arrowup: () => focusField(-1),
    e: typeOwn,
    "?": () => dialog()?.showModal(),
  };

  function inText(element) {
    return element.matches?.("textarea, select, input:not([type=radio], [type=checkbox])");
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const inside = inText(event.target);
    if (event.key === "Enter" && !event.shiftKey && event.target.closest?.("[data-ls-decide]")) {
      decide(event);
      return;
    }
    if (inside) {
      if (event.key === "Escape" && current()) {
        target(current()).focus();
        event.preventDefault();
      }
      return;
    }
    if (event.code === "Digit1" || event.code === "Digit2") {
      chooseOne(Number(event.code.slice(-1)), event.shiftKey);
      event.preventDefault();
      return;
    }
    const act = KEYS[event.key.toLowerCase()];
    if (act) {
      act();
      event.preventDefault();
    }
  });

  // Typing a value of one's own chooses it.
  document.addEventListener("input", (event) => {
    if (!event.target.matches?.("[data-ls-own-text]")) return;
    event.target.closest("[data-ls-field]").querySelector("[data-ls-own]").checked = true;
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest?.("[data-ls-keys]")) dialog()?.showModal();
  });

  const begin = () => {
    const chosen = document.querySelector("[data-ls-items] [aria-current]");
    if (chosen) chosen.closest("[data-ls-items]").scrollTop = chosen.offsetTop - 80;
    const problem = document.querySelector("[data-ls-focus]");
    if (problem) problem.focus();
    else focusField(0, { preventScroll: true });
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
