// Where the page has its answers from: models that run in the browser. The server's page has a module of the same name
// and the same functions in its place, apps/serve/page/answers.js.

let worker;
let asked = 0;
const waiting = new Map(); // what the worker has been asked, by number: [resolve, reject]

/** Has the service worker store all that the page needs, so that it is loaded once and works without a connection. */
async function keep() {
  if (!navigator.serviceWorker) return; // not over https, or not allowed: the page works, but only online
  try {
    const registration = await navigator.serviceWorker.register("service_worker.js", { updateViaCache: "none" });
    offerNewer(registration);
    if (!navigator.serviceWorker.controller) await inControl(registration);
  } catch {
    // the same as without a service worker
  }
}

/** Waits until the service worker has stored everything and answers for this page, or has given up. */
const inControl = (registration) => new Promise((resolve) => {
  const installing = registration.installing ?? registration.waiting;
  navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
  installing?.addEventListener("statechange", () => {
    if (installing.state === "redundant" || (installing.state === "installed" && registration.active)) resolve();
  });
  if (registration.active && !installing) resolve(); // it stays aside where a reload was forced
});

/** Shows a button when a newer page or model is on the host. Until it is pressed, everything stays as it was loaded. */
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

/** Starts what computes, beside the page so that it stays responsive. */
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

/** Asks the worker; what it found, or an Error with one sentence. */
async function ask(what, content) {
  await started;
  const number = asked++;
  return new Promise((resolve, reject) => {
    waiting.set(number, [resolve, reject]);
    worker.postMessage({ number, what, ...content });
  });
}

/** Loads the runtime and the first model, and says so. */
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

/** The models that can be asked: name, classes, and whether they were trained on crops (`cropped`). */
export async function listModels() {
  await started;
  try {
    return await (await fetch("models.json")).json();
  } catch {
    throw new Error("The page could not be loaded: reload it when there is a connection.");
  }
}

/** What each of these models says of a photo: the most probable classes first. */
export const answer = (photo, names) => ask("answer", { photo: photo.blob, names });

/** The most probable class, and where a model looked: `look.map`, rows of numbers, and `look.picture`, an address. */
export const look = (photo, name) => ask("look", { photo: photo.blob, name });
