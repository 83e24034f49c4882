// Stores the page, the runtime and the models at the first visit, and answers from there ever after. `STORED`, the files
// with their SHA-256, is written above by temper/page/assembly.py: a changed file changes this one, by which browsers
// notice, and then only what has changed is loaded.

importScripts("runtime_name.js");

const PLACE = self.registration.scope; // the folder of this page; others may be on the same host
const CACHE = `temper ${PLACE}`;
const TYPES = { html: "text/html", css: "text/css", js: "text/javascript", json: "application/json" };
// As in index.html, for the worker, which does not have that of the page.
const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'";

/** Where a file is kept: under its checksum, so that an old and a new version lie side by side. */
const key = (file) => `${PLACE}${file}?${STORED[file]}`;

/** Of the two builds of the runtime, only that for this browser. */
const needed = () => Object.keys(STORED)
  .filter((file) => !file.startsWith("runtime/litert_wasm") || file.startsWith(`runtime/${self.runtimeName()}.`));

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Loads what is not there yet. A host in the middle of being updated gives other bytes: then all stays as it was. */
async function store() {
  const cache = await caches.open(CACHE);
  await Promise.all(needed().map(async (file) => {
    if (await cache.match(key(file))) return;
    const answer = await fetch(`${PLACE}${file}`, { cache: "no-cache" });
    const bytes = await answer.arrayBuffer();
    if (!answer.ok || (await sha256(bytes)) !== STORED[file]) throw new Error(`${file} is not what was exported`);
    const type = TYPES[file.split(".").at(-1)] ?? "application/octet-stream";
    const headers = { "Content-Type": type, ...(file === "worker.js" ? { "Content-Security-Policy": POLICY } : {}) };
    await cache.put(key(file), new Response(bytes, { headers }));
  }));
}

/** Removes what only older versions had. */
async function tidy() {
  const cache = await caches.open(CACHE);
  const wanted = new Set(needed().map(key));
  const stale = (await cache.keys()).filter((request) => !wanted.has(request.url));
  await Promise.all(stale.map((request) => cache.delete(request)));
}

async function answer(request, file) {
  const found = await caches.match(key(file), { cacheName: CACHE });
  return found ?? fetch(request); // a browser that is short of space throws stored files away
}

self.addEventListener("install", (event) => event.waitUntil(store()));
self.addEventListener("activate", (event) => event.waitUntil(tidy().then(() => self.clients.claim())));
self.addEventListener("message", (event) => { if (event.data === "take over") self.skipWaiting(); });
self.addEventListener("fetch", (event) => {
  const place = event.request.url.split(/[?#]/)[0];
  if (event.request.method !== "GET" || !place.startsWith(PLACE)) return;
  const file = place.slice(PLACE.length) || "index.html";
  if (Object.hasOwn(STORED, file)) event.respondWith(answer(event.request, file));
});
