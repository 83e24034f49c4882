// Runs the models in a thread of its own. It is a classic worker, not a module, because the runtime's loader needs
// `importScripts`.

importScripts("runtime_name.js");

const TOP = 5; // how many classes an answer has, as on the server's page
const RUNTIME = "runtime/";

/** The bytes of a file of this folder. */
async function bytes(file) {
  const answer = await fetch(file).catch(() => null);
  if (!answer?.ok) {
    const sentence = "The model could not be loaded: try again when there is a connection.";
    throw Object.assign(new Error(sentence), { forPeople: true });
  }
  return answer.arrayBuffer();
}

/** Starts LiteRT. Its WebAssembly is stored compressed: most hosts would send it uncompressed, three times as large. */
async function startRuntime() {
  const name = self.runtimeName();
  const [litert, packed] = await Promise.all([import(`./${RUNTIME}litert.js`), bytes(`${RUNTIME}${name}.bin`)]);
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  // The runtime's loader reads these. It reports its normal start as errors, hence `printErr`.
  self.Module = { wasmBinary: await new Response(unpacked).arrayBuffer(), printErr: console.debug };
  await litert.loadLiteRt(`${RUNTIME}${name}.js`);
  return litert;
}

let runtime, listed, preparing;
const opened = new Map(); // name of a model -> promise of the opened model

const once = (promise, forget) => promise.catch((error) => { forget(); throw error; }); // so that a later photo retries

const models = () => (listed ??= once(bytes("models.json").then((text) => JSON.parse(new TextDecoder().decode(text))),
  () => { listed = undefined; }));

const litert = () => (runtime ??= once(startRuntime(), () => { runtime = undefined; }));

const preparation = () => (preparing ??= once(import("./preparation.js"), () => { preparing = undefined; }));

async function open(name) {
  const described = (await models()).find((one) => one.name === name);
  const [api, file] = await Promise.all([litert(), bytes(described.file)]);
  const compiled = await api.loadAndCompile(new Uint8Array(file), { accelerator: "wasm" });
  return { ...described, compiled, Tensor: api.Tensor };
}

function model(name) {
  if (!opened.has(name)) opened.set(name, once(open(name), () => opened.delete(name)));
  return opened.get(name);
}

/** The probabilities of a prepared photo, in the order of the model's classes. */
async function predict(asked, pixels) {
  const given = new asked.Tensor(Float32Array.from(pixels), [1, asked.height, asked.width, 3]);
  try {
    const [found] = await asked.compiled.run(given);
    const probabilities = Float32Array.from(found.toTypedArray());
    found.delete();
    return probabilities;
  } finally {
    given.delete();
  }
}

/** The most probable classes first. */
const ranked = (asked, probabilities, top) => [...probabilities]
  .map((probability, place) => ({ name: asked.classes[place], probability }))
  .sort((one, other) => other.probability - one.probability)
  .slice(0, top);

const tasks = {
  async load() {
    await Promise.all([model((await models())[0].name), preparation()]);
  },

  async answer({ photo, names, top = TOP }) {
    const chosen = names.length ? names : [(await models())[0].name]; // empty if the page has not listed the models yet
    const asked = await Promise.all(chosen.map(model));
    const prepared = await (await preparation()).prepare(photo, asked);
    const answers = [];
    for (const [place, one] of asked.entries()) {
      const classes = ranked(one, await predict(one, prepared[place]), top);
      answers.push({ model: one.name, version: one.version, classes });
    }
    return answers;
  },

  async look({ photo, name }) {
    const asked = await model(name);
    const [pixels] = await (await preparation()).prepare(photo, [asked]);
    const { occlusionMap } = await import("./occlusion.js");
    const found = await occlusionMap((shown) => predict(asked, shown), pixels, asked.height, asked.width);
    const classes = ranked(asked, found.probabilities, 1);
    return { model: name, version: asked.version, classes, look: { map: found.map, picture: await picture(asked, pixels) } };
  },
};

/** The model's input as a PNG in a data URL. */
async function picture({ height, width }, pixels) {
  const canvas = new OffscreenCanvas(width, height);
  const shown = new ImageData(width, height);
  for (let place = 0; place < width * height; place++) {
    shown.data.set([...pixels.subarray(3 * place, 3 * place + 3), 255], 4 * place);
  }
  canvas.getContext("2d").putImageData(shown, 0, 0);
  return new FileReaderSync().readAsDataURL(await canvas.convertToBlob());
}

let last = Promise.resolve(); // photos are processed one at a time, because decoding a large one takes much memory

self.addEventListener("message", ({ data: { number, what, ...content } }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ number, found: await tasks[what](content) });
    } catch (error) {
      const sentence = error.forPeople ? error.message : `The model could not be run: ${error.message}`;
      self.postMessage({ number, problem: sentence });
    }
  });
});
