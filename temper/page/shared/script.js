// The page for people, used by the server and by the page without a server; only `answers.js` differs. Names of
// classes, models and files are not trusted: they are only ever put into `textContent`, never into HTML.

import * as answers from "./answers.js";

const byId = (id) => document.getElementById(id);
const AT_ONCE = 4; // how many photos are classified at the same time
let models = []; // as `answers.listModels` describes them

const say = (text) => { byId("said").textContent = text; };

/** Lists the models to choose from; a single one is not shown. */
async function showModels() {
  try {
    models = await answers.listModels();
  } catch (error) {
    say(error.message);
    return;
  }
  byId("models").querySelectorAll("label").forEach((label) => label.remove());
  for (const [place, model] of models.entries()) {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.value = model.name;
    box.checked = place === 0;
    label.append(box, document.createTextNode(model.name));
    byId("models").append(label);
  }
  byId("models").hidden = models.length < 2;
}

const chosenModels = () => {
  const chosen = [...byId("models").querySelectorAll("input:checked")].map((box) => box.value);
  return chosen.length ? chosen : models.slice(0, 1).map((model) => model.name);
};

/** Adds a card for a photo above the others, still without answers. */
function addCard(photo) {
  const card = byId("card").content.cloneNode(true).firstElementChild;
  card.querySelector("h2").textContent = photo.name;
  const remove = card.querySelector(".remove");
  remove.setAttribute("aria-label", `Remove ${photo.name}`);
  if (photo.blob) {
    const image = card.querySelector(".photo img");
    const url = URL.createObjectURL(photo.blob);
    image.alt = photo.name;
    image.onload = () => { card.querySelector(".photo").hidden = false; };
    image.src = url;
    remove.addEventListener("click", () => URL.revokeObjectURL(url));
  }
  remove.addEventListener("click", () => {
    const next = card.nextElementSibling ?? card.previousElementSibling;
    card.remove();
    (next ?? byId("files")).focus();
  });
  const waiting = document.createElement("p");
  waiting.textContent = "Asking ...";
  card.querySelector(".answers").append(waiting);
  byId("results").prepend(card);
  return card;
}

function showError(place, message) {
  const line = document.createElement("p");
  line.className = "error";
  line.textContent = message;
  place.replaceChildren(line);
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function bar(guess) {
  const item = document.createElement("li");
  const name = document.createElement("span");
  const share = document.createElement("span");
  const progress = document.createElement("progress");
  name.className = "name";
  name.textContent = guess.name;
  share.className = "share";
  share.textContent = percent(guess.probability);
  progress.value = guess.probability;
  progress.setAttribute("aria-hidden", "true"); // the number says the same
  item.append(name, share, progress);
  return item;
}

function showAnswer(photo, answer) {
  const shown = byId("answer").content.cloneNode(true).firstElementChild;
  shown.querySelector("h3").textContent = answer.model;
  const model = models.find((one) => one.name === answer.model);
  if (model?.cropped) {
    const note = shown.querySelector(".note");
    note.textContent = "Trained on photos cropped to their main object; here it saw the whole photo.";
    note.hidden = false;
  }
  shown.querySelector(".bars").append(...answer.classes.map(bar));
  const button = shown.querySelector(".look");
  button.addEventListener("click", () => look(photo, answer.model, shown, button));
  return shown;
}

/** Finds out where a model looked, and shows it. */
async function look(photo, name, shown, button) {
  button.disabled = true;
  say(`Asking where ${name} looked ...`);
  try {
    const answer = await answers.look(photo, name);
    const figure = shown.querySelector(".looked");
    figure.querySelector("img").src = answer.look.picture;
    const canvas = figure.querySelector("canvas");
    paint(canvas, answer.look.map);
    const where = inWords(answer.look.map);
    canvas.setAttribute("aria-label", where);
    figure.querySelector("figcaption").textContent =
      `What ${name} saw. Red: speaks for ${answer.classes[0].name}; blue: against it. ${where}`;
    figure.hidden = false;
    button.hidden = true;
    say(where);
  } catch (error) {
    button.disabled = false;
    say(error.message);
  }
}

/** Paints a map over the picture: red where a part is evidence for the class, blue where it is evidence against it. */
function paint(canvas, map) {
  const rows = map.length, columns = map[0].length;
  const most = Math.max(...map.flat().map(Math.abs), 1e-6);
  const small = document.createElement("canvas");
  [small.width, small.height] = [columns, rows];
  const pixels = new ImageData(columns, rows);
  map.flat().forEach((value, place) => {
    const colour = value > 0 ? [230, 30, 20] : [20, 80, 240];
    pixels.data.set([...colour, Math.round((190 * Math.abs(value)) / most)], 4 * place);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  [canvas.width, canvas.height] = [columns * 40, rows * 40];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

/** The position of the strongest part of a map in words, for users who cannot see it. */
function inWords(map) {
  const flat = map.flat();
  const place = flat.indexOf(Math.max(...flat));
  const third = (value, count, words) => words[Math.min(2, Math.floor((3 * (value + 0.5)) / count))];
  const row = third(Math.floor(place / map[0].length), map.length, ["top", "", "bottom"]);
  const column = third(place % map[0].length, map[0].length, ["left", "", "right"]);
  const where = [row, column].filter(Boolean).join(" ");
  return `What spoke most for it is ${where ? `at the ${where}` : "in the centre"}.`;
}

async function classify(photo, card) {
  const place = card.querySelector(".answers");
  try {
    const found = await answers.answer(photo, chosenModels());
    place.replaceChildren(...found.map((answer) => showAnswer(photo, answer)));
    const best = found[0].classes[0];
    return `${photo.name}: ${best.name}, ${percent(best.probability)}`;
  } catch (error) {
    showError(place, error.message);
    return `${photo.name}: ${error.message}`;
  }
}

/** Classifies photos, some at a time, and reports the results. */
async function classifyAll(photos) {
  if (!photos.length) return;
  say(photos.length === 1 ? "Asking ..." : `Asking about ${photos.length} photos ...`);
  // Add the cards from the last to the first, since each card is put above the others.
  const waiting = [...photos].reverse().map((photo) => [photo, addCard(photo)]).reverse(), lines = [];
  const work = async () => {
    while (waiting.length) lines.push(await classify(...waiting.shift()));
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, waiting.length) }, work));
  say(lines.length === 1 ? lines[0] : `${lines.length} photos answered.`);
}

const named = (files) => [...files].map((file) => ({ name: file.name || "photo", blob: file }));

function listenForFiles() {
  for (const id of ["files", "capture"]) {
    byId(id).addEventListener("change", (event) => {
      const files = named(event.target.files);
      event.target.value = "";
      classifyAll(files);
    });
  }
  const drop = byId("drop");
  document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    classifyAll(named(event.dataTransfer.files));
  });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) event.preventDefault();
    classifyAll(named(files));
  });
}

/** Opens the camera in the page if the browser allows it, otherwise the phone's camera app. */
async function useCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    byId("capture").click(); // without https, browsers give no video, but phones can take a photo
    return;
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    say("The browser gives no camera.");
    return;
  }
  byId("video").srcObject = stream;
  byId("viewfinder").showModal();
  byId("viewfinder").addEventListener("close", () => stream.getTracks().forEach((track) => track.stop()), { once: true });
}

function takePhoto() {
  const video = byId("video");
  if (video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return; // no frame yet: the photo would be black
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  byId("viewfinder").close();
  canvas.toBlob((blob) => blob && classifyAll([{ name: "Photo from the camera", blob }]), "image/jpeg", 0.95);
}

function listen() {
  listenForFiles();
  byId("camera").addEventListener("click", useCamera);
  byId("take").addEventListener("click", takePhoto);
  byId("no-photo").addEventListener("click", () => byId("viewfinder").close());
  byId("by-address").addEventListener("submit", (event) => {
    event.preventDefault();
    const address = byId("address").value;
    classifyAll([{ name: address, address }]);
  });
}

listen();
answers.begin({ say, changed: () => { say(""); showModels(); } });
showModels();
