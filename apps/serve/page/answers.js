// Gets the page's answers from the server that it was loaded from. The page without a server uses another module with
// the same name and functions in its place: temper/page/alone/answers.js.

const byId = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token");

/** Sends a request to the server; returns the parsed JSON of the answer, or throws an Error with one sentence. */
async function ask(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let answer, content;
  try {
    answer = await fetch(path, { ...options, headers });
    content = await answer.json();
  } catch {
    throw new Error("The server does not answer.");
  }
  if (answer.status === 401) askForToken();
  if (!answer.ok) throw new Error(content.error ?? `The server answered with the status ${answer.status}.`);
  return content;
}

function askForToken() {
  byId("with-token").hidden = false;
  byId("token").focus();
}

const query = (names, more = {}) => {
  const parameters = new URLSearchParams(more);
  names.forEach((name) => parameters.append("model", name));
  return `predict?${parameters}`;
};

/** The options of the request for a photo: they send its bytes, or its URL. */
const body = (photo) => photo.blob
  ? { method: "POST", body: photo.blob, headers: { "Content-Type": "application/octet-stream" } }
  : {
    method: "POST",
    body: JSON.stringify({ photos: [{ address: photo.address }] }),
    headers: { "Content-Type": "application/json" },
  };

/** Shows what this server allows, and listens for a token if the server needs one; then calls `changed`. */
export async function begin({ changed }) {
  byId("with-token").addEventListener("submit", (event) => {
    event.preventDefault();
    token = byId("token").value;
    sessionStorage.setItem("token", token);
    changed();
  });
  const { addresses } = await ask("healthz").catch(() => ({}));
  byId("by-address").hidden = !addresses;
}

/** The models: `name`, `classes`, and `cropped`, whether they were trained on crops but get whole photos here. */
export async function listModels() {
  const models = await ask("models");
  byId("with-token").hidden = true;
  return models;
}

/** The answer of each of these models for a photo, with the most probable classes first. */
export async function answer(photo, names) {
  return (await ask(query(names), body(photo))).photos[0].answers;
}

/** The most probable class, and where a model looked: `look.map`, rows of numbers, and `look.picture`, a URL. */
export async function look(photo, name) {
  return (await ask(query([name], { look: "true", top: "1" }), body(photo))).photos[0].answers[0];
}
