// Stores the page, the runtime and the models at the first visit, and serves them from there afterwards. `STORED`, the
// files with their SHA-256, is inserted above by temper/page/assembly.py. So if any file changes, this script changes,
// which browsers notice; then they load only the changed files.

importScripts("runtime_name.js");

const PLACE = self.registration.scope; // the folder of this page; the host may have other pages
const CACHE = `temper ${PLACE}`;
const TYPES = { html: "text/html", css: "text/css", js: "text/javascript", json: "application/json" };
// The policy of index.html for the worker, to which the page's own policy does not apply.
const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'";

/** The cache key of a file. It contains the checksum, so that an old and a new version can be stored side by side. */
const key = (file) => `${PLACE}${file}?${STORED[file]}`;

/** The files to store: all, but of the two builds of the runtime only the one for this browser. */
const needed = () => Object.keys(STORED)
  .filter((file) => !file.startsWith("runtime/litert_wasm") || file.startsWith(`runtime/${self.runtimeName()}.`));

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Loads missing files. If the host is just being updated and sends other bytes, it fails and the old version stays. */
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

/** Removes files that only older versions used. */
async function tidy() {
  const cache = await caches.open(CACHE);
  const wanted = new Set(needed().map(key));
  const stale = (await cache.keys()).filter((request) => !wanted.has(request.url));
  await Promise.all(stale.map((request) => cache.delete(request)));
}

async function answer(request, file) {
  const found = await caches.match(key(file), { cacheName: CACHE });
  return found ?? fetch(request); // a browser that is short of space may have deleted stored files
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
