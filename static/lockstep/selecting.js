// Ticking changes across pages: what is chosen is remembered while the tab is open and sent as one
// field. Without this script the boxes of one page are sent.
"use strict";

(() => {
  const form = document.querySelector("[data-ls-selecting]");
  if (!form) return;
  const place = `ls-chosen:${form.dataset.lsSelecting}`;
  const boxes = [...document.querySelectorAll("input[name=change]")];
  const all = document.querySelector("[data-ls-choose-all]");
  const chosen = new Set(JSON.parse(sessionStorage.getItem(place) || "[]"));

  function show() {
    sessionStorage.setItem(place, JSON.stringify([...chosen]));
    form.querySelector("[name=chosen]").value = [...chosen].join(",");
    for (const element of document.querySelectorAll("[data-ls-chosen-count]")) element.textContent = chosen.size;
    for (const button of document.querySelectorAll("[data-ls-needs-chosen]")) {
      button.disabled = !chosen.size;
      button.dataset.lsConfirm = button.dataset.lsQuestion.replace("{count}", chosen.size);
    }
    if (!all) return;
    const ticked = boxes.filter((box) => box.checked).length;
    all.checked = Boolean(ticked) && ticked === boxes.length;
    all.indeterminate = Boolean(ticked) && ticked < boxes.length;
  }

  function note(box) {
    if (box.checked) chosen.add(box.value);
    else chosen.delete(box.value);
  }

  for (const box of boxes) {
    box.checked = chosen.has(box.value);
    box.addEventListener("change", () => { note(box); show(); });
  }
  all?.addEventListener("change", () => {
    for (const box of boxes) { box.checked = all.checked; note(box); }
    show();
  });
  document.querySelector("[data-ls-choose-none]")?.addEventListener("click", () => {
    chosen.clear();
    for (const box of boxes) box.checked = false;
    show();
  });
  form.addEventListener("submit", (event) => {
    if (!event.defaultPrevented) sessionStorage.removeItem(place);
  });
  show();
})();
