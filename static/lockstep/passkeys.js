// The browser's half of a passkey ceremony: options from the page, the answer into its form.
"use strict";

const bytesOf = (text) =>
  Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));

const textOf = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer)))
    .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

const descriptors = (list) => list.map((item) => ({ ...item, id: bytesOf(item.id) }));

async function createPasskey(options) {
  const credential = await navigator.credentials.create({ publicKey: {
    ...options,
    challenge: bytesOf(options.challenge),
    user: { ...options.user, id: bytesOf(options.user.id) },
    excludeCredentials: descriptors(options.excludeCredentials ?? []),
  } });
  return answer(credential, {
    clientDataJSON: textOf(credential.response.clientDataJSON),
    attestationObject: textOf(credential.response.attestationObject),
    transports: credential.response.getTransports?.() ?? [],
  });
}

async function getPasskey(options) {
  const credential = await navigator.credentials.get({ publicKey: {
    ...options,
    challenge: bytesOf(options.challenge),
    allowCredentials: descriptors(options.allowCredentials),
  } });
  const { clientDataJSON, authenticatorData, signature, userHandle } = credential.response;
  return answer(credential, {
    clientDataJSON: textOf(clientDataJSON),
    authenticatorData: textOf(authenticatorData),
    signature: textOf(signature),
    userHandle: userHandle ? textOf(userHandle) : null,
  });
}

function answer(credential, response) {
  return { id: credential.id, rawId: textOf(credential.rawId), type: credential.type, response };
}

// What browsers call their refusals, in words.
const REASONS = {
  NotAllowedError: "Nothing was chosen, or it took too long. Try again.",
  InvalidStateError: "This device holds a passkey of yours for Lockstep already.",
  SecurityError: "The browser does not allow passkeys at this address.",
};

async function perform(form, button) {
  const problem = form.querySelector("[data-ls-passkey-error]");
  const options = JSON.parse(document.getElementById("ls-passkey-options").textContent);
  problem.hidden = true;
  button.disabled = true;
  try {
    const ceremony = form.dataset.lsPasskey === "create" ? createPasskey : getPasskey;
    form.elements.passkey.value = JSON.stringify(await ceremony(options));
    form.submit();
  } catch (error) {
    problem.textContent = REASONS[error.name] ?? `The browser says: ${error.message}`;
    problem.hidden = false;
    button.disabled = false;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-ls-passkey-button]");
  if (button) perform(button.closest("form"), button);
});
