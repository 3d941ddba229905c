// The rule's form: sections for two-way rules only, and the policies that suit a field.
"use strict";

(() => {
  const ready = (work) =>
    document.readyState === "loading"
      ? document.addEventListener("DOMContentLoaded", work)
      : work();

  function showTwoWay() {
    const direction = document.querySelector("select[name=direction]");
    if (!direction) return;
    for (const part of document.querySelectorAll(".ls-only-two-way")) {
      const section = part.closest(".inline-group") ?? part;
      section.hidden = direction.value !== "two_way";
    }
  }

  // A policy that does not suit the type of the chosen field is not offered.

  function offerPolicies(field, help) {
    const row = field.closest("tr, .inline-related, .form-row") ?? field.parentElement;
    const policy = row.querySelector("select[name$=-policy]");
    if (!policy) return;
    const fitting = help.fitting[field.value];
    for (const option of policy.options) {
      const suits = !fitting || !option.value || fitting.includes(option.value);
      option.hidden = option.disabled = !suits && !option.selected;
    }
    explain(policy, help);
  }

  function explain(policy, help) {
    const cell = policy.closest("td") ?? policy.parentElement;
    let words = cell.querySelector(".ls-policy-words");
    if (!words) {
      words = Object.assign(document.createElement("p"), { className: "ls-help ls-policy-words" });
      words.setAttribute("aria-live", "polite");
      cell.append(words);
    }
    words.textContent = help.words[policy.value] ?? "";
  }

  ready(() => {
    showTwoWay();
    const source = document.getElementById("ls-policy-help");
    const help = source ? JSON.parse(source.textContent) : { fitting: {}, words: {} };
    const isPart = (element, part) => element.name?.startsWith("field_policies-") && element.name.endsWith(part);
    for (const field of document.querySelectorAll("select[name^=field_policies-][name$=-field]")) {
      offerPolicies(field, help);
    }
    document.addEventListener("change", (event) => {
      if (event.target.name === "direction") showTwoWay();
      if (isPart(event.target, "-field")) offerPolicies(event.target, help);
      if (isPart(event.target, "-policy")) explain(event.target, help);
    });
  });
})();
