// Gets the page's answers from models that run in the browser. The server's page uses another module with the same name
// and functions in its place: apps/serve/page/answers.js.

let worker;
let asked = 0;
const waiting = new Map(); // requests to the worker that are not answered yet: number -> [resolve, reject]

/** Lets the service worker store everything the page needs, so that it is loaded only once and works offline. */
async function keep() {
  if (!navigator.serviceWorker) return; // no https, or not allowed: the page works, but only online
  try {
    const registration = await navigator.serviceWorker.register("service_worker.js", { updateViaCache: "none" });
    offerNewer(registration);
    if (!navigator.serviceWorker.controller) await inControl(registration);
  } catch {
    // The page works as it does without a service worker.
  }
}

/** Waits until the service worker has stored everything and controls this page, or has failed. */
const inControl = (registration) => new Promise((resolve) => {
  const installing = registration.installing ?? registration.waiting;
  navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
  installing?.addEventListener("statechange", () => {
    if (installing.state === "redundant" || (installing.state === "installed" && registration.active)) resolve();
  });
  if (registration.active && !installing) resolve(); // after a forced reload, it does not control the page
});

/** Shows a button if there is a newer page or model on the host. Until it is pressed, the loaded version stays. */
function offerNewer(registration) {
  const offer = (newer) => {
    if (!navigator.serviceWorker.controller || document.getElementById("newer")) return;
    const line = document.createElement("p");
    const button = document.createElement("button");
    line.id = "newer";
    line.className = "row";
    button.textContent = "Load it";
    button.addEventListener("click", () => {
      navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
      newer.postMessage("take over");
    });
    line.append("There is a newer version of this page. ", button);
    document.getElementById("give").prepend(line);
  };
  if (registration.waiting) offer(registration.waiting);
  registration.addEventListener("updatefound", () => {
    const newer = registration.installing;
    newer.addEventListener("statechange", () => { if (newer.state === "installed") offer(newer); });
  });
}

/** Starts the worker that runs the models, so that the page stays responsive. */
function start() {
  worker = new Worker("worker.js");
  worker.addEventListener("message", ({ data }) => {
    const [resolve, reject] = waiting.get(data.number);
    waiting.delete(data.number);
    if (data.problem) reject(new Error(data.problem));
    else resolve(data.found);
  });
  worker.addEventListener("error", (event) => {
    event.preventDefault();
    for (const [, reject] of waiting.values()) reject(new Error("This browser cannot run the page: it may be too old."));
    waiting.clear();
  });
}

const started = keep().then(start);

/** Sends a request to the worker; returns its result, or throws an Error with one sentence. */
async function ask(what, content) {
  await started;
  const number = asked++;
  return new Promise((resolve, reject) => {
    waiting.set(number, [resolve, reject]);
    worker.postMessage({ number, what, ...content });
  });
}

/** Loads the runtime and the first model, and tells the user. */
export async function begin({ say }) {
  say("Loading the model ...");
  try {
    await ask("load", {});
    const also = navigator.serviceWorker?.controller ? ", also without a connection" : "";
    say(`Ready${also}. Photos stay in this browser.`);
  } catch (error) {
    say(error.message);
  }
}

/** The models: `name`, `classes`, and `cropped`, whether they were trained on crops but get whole photos here. */
export async function listModels() {
  await started;
  try {
    return await (await fetch("models.json")).json();
  } catch {
    throw new Error("The page could not be loaded: reload it when there is a connection.");
  }
}

/** The answer of each of these models for a photo, with the most probable classes first. */
export const answer = (photo, names) => ask("answer", { photo: photo.blob, names });

/** The most probable class, and where a model looked: `look.map`, rows of numbers, and `look.picture`, a URL. */
export const look = (photo, name) => ask("look", { photo: photo.blob, name });
