// The page of the queue. Names, params and logs are not trusted: they are only ever put into `textContent`, never into
// HTML.

const byId = (id) => document.getElementById(id);
const PAUSE = 3000; // milliseconds between two requests for the tasks
const SVG = "http://www.w3.org/2000/svg";
let token = sessionStorage.getItem("token");
let shown = ""; // the tasks in the table as JSON, so that it is only rebuilt when something has changed
let retry = null; // the last request and its id; if it is sent again with this id, nothing runs twice

const say = (text, isError = false) => {
  byId("said").textContent = text;
  byId("said").classList.toggle("error", isError);
};

/** Sends a request to the server; returns the response, or throws an Error with one sentence. */
async function call(path, options = {}) {
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw Object.assign(new Error("The server does not answer."), { cut: true });
  }
  if (answer.status === 401 && byId("with-token").hidden) {
    byId("with-token").hidden = false;
    byId("token").focus();
  }
  if (!answer.ok) {
    const content = await answer.json().catch(() => ({}));
    throw new Error(content.error ?? `The server answered with the status ${answer.status}.`);
  }
  return answer;
}

const ask = async (path, options) => (await call(path, options)).json();
const post = (path, content) => ask(path, {
  method: "POST", body: JSON.stringify(content), headers: { "Content-Type": "application/json" },
});
const element = (name, text = "", kind = "") => {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
};
const short = (value) => typeof value === "number" ? String(+value.toPrecision(5)) : JSON.stringify(value) ?? "";

/** The metrics that get a column: the validation figures to choose by or, without any, the first four metrics. */
function columns(tasks) {
  const names = [...new Set(tasks.flatMap((task) => Object.keys(task.metrics)))];
  const chosen = names.filter((name) => /^(warm_up_)?validation_(accuracy|loss|macro_f1)$/.test(name));
  return chosen.length ? chosen : names.slice(0, 4);
}

function button(text, label, action) {
  const made = element("button", text, "plain");
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", async () => {
    made.disabled = true;
    try {
      await action();
    } catch (error) {
      say(error.message, true);
    }
    made.disabled = false;
  });
  return made;
}

function row(task, names) {
  const made = document.createElement("tr");
  const name = element("th", task.name);
  name.scope = "row";
  const params = Object.entries(task.params).map(([key, value]) => value === null ? `${key} removed` : `${key} = ${short(value)}`);
  made.append(name, element("td", task.state, task.state), element("td", params.join(", ")));
  for (const metric of names) made.append(element("td", metric in task.metrics ? short(task.metrics[metric]) : "", "number"));
  const buttons = element("td", "", "buttons");
  if (task.state !== "queued") buttons.append(button("Log", `Log of ${task.name}`, () => read(task)));
  if (task.state === "queued" || task.state === "running") {
    buttons.append(button("Cancel", `Cancel ${task.name}`, async () => {
      await ask(`tasks/${task.rev}`, { method: "DELETE" });
      say(`${task.name} is cancelled.`);
      await look();
    }));
  }
  made.append(buttons);
  return made;
}

/** Rebuilds the table if anything has changed, and keeps the focus where it was. */
function show(tasks) {
  const text = JSON.stringify(tasks);
  if (text === shown) return;
  shown = text;
  const focus = document.activeElement?.closest("tbody") ? document.activeElement.getAttribute("aria-label") : null;
  const names = columns(tasks);
  const heads = ["Name", "State", "Changed", ...names, "Actions"].map((name) => element("th", name));
  heads.forEach((head) => { head.scope = "col"; });
  document.querySelector("thead tr").replaceChildren(...heads);
  document.querySelector("tbody").replaceChildren(...[...tasks].reverse().map((task) => row(task, names)));
  byId("none").hidden = tasks.length > 0;
  byId("repair").hidden = !tasks.some((task) => task.state === "lost");
  if (focus) [...document.querySelectorAll("tbody button")].find((one) => one.getAttribute("aria-label") === focus)?.focus();
}

function picture(name, points) {
  const figure = document.createElement("figure");
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  const [steps, values] = [points.map((point) => point[0]), points.map((point) => point[1])];
  const scale = (all, from, to) => {
    const [least, most] = [Math.min(...all), Math.max(...all)];
    return (value) => most === least ? (from + to) / 2 : from + (value - least) / (most - least) * (to - from);
  };
  const [across, up] = [scale(steps, 2, 98), scale(values, 95, 5)];
  const ground = document.createElementNS(SVG, "line");
  for (const [key, value] of Object.entries({ x1: 0, x2: 100, y1: 99, y2: 99 })) ground.setAttribute(key, value);
  const path = document.createElementNS(SVG, "path");
  const places = points.map(([step, value]) => `${across(step).toFixed(2)} ${up(value).toFixed(2)}`);
  path.setAttribute("d", `M ${places[0]} L ${places.join(" L ")}`);
  if (points.length === 1) path.setAttribute("d", `M 40 50 L 60 50`);
  svg.append(ground, path);
  const last = `${name}: ${short(values.at(-1))} at ${short(steps.at(-1))}, from ${short(Math.min(...values))} to ${short(Math.max(...values))}`;
  svg.setAttribute("aria-label", last);
  figure.append(svg, element("figcaption", last));
  return figure;
}

async function draw(tasks) {
  const running = tasks.filter((task) => task.state === "running");
  const figures = [];
  for (const task of running) {
    const curves = await ask(`tasks/${task.rev}/curves`).catch(() => ({}));
    for (const [name, points] of Object.entries(curves)) figures.push(picture(`${task.name}, ${name}`, points));
  }
  byId("pictures").replaceChildren(...figures);
  byId("running").hidden = figures.length === 0;
}

async function look() {
  const tasks = await ask("tasks");
  byId("with-token").hidden = true;
  show(tasks);
  await draw(tasks);
}

/** Shows a log, and keeps adding to it while the dialog is open. */
async function read(task) {
  const ended = new AbortController();
  byId("of").textContent = `Log of ${task.name}`;
  byId("text").textContent = "";
  byId("reader").showModal();
  byId("reader").addEventListener("close", () => ended.abort(), { once: true });
  try {
    const answer = await call(`tasks/${task.rev}/log?follow=true`, { signal: ended.signal });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const pre = byId("text");
      const atEnd = pre.scrollHeight - pre.scrollTop - pre.clientHeight < 40;
      pre.append(part.value);
      if (atEnd) pre.scrollTop = pre.scrollHeight;
    }
  } catch (error) {
    if (error.name !== "AbortError") byId("text").append(`\n${error.message}`);
  }
}

function addSetting() {
  const made = byId("setting").content.cloneNode(true).firstElementChild;
  byId("settings").append(made);
  return made;
}

/** Parses a value as JSON if possible, otherwise takes it as a text: 3e-6 is a number, adamw a text. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

async function send() {
  const params = {};
  for (const setting of document.querySelectorAll(".setting")) {
    const key = setting.querySelector(".key").value.trim();
    if (key in params) throw new Error(`${key} is set twice.`);
    if (key) params[key] = parsed(setting.querySelector(".value").value.trim());
  }
  const name = byId("name").value.trim();
  const wish = { params, grid: byId("grid").checked, ...(name ? { name } : {}) };
  const text = JSON.stringify(wish);
  if (retry?.text !== text) retry = { text, id: `page-${Date.now()}-${crypto.getRandomValues(new Uint32Array(2)).join("-")}` };
  try {
    const { tasks } = await post("runs", { ...wish, id: retry.id });
    retry = null;
    byId("name").value = "";
    say(tasks.length === 1 ? `${tasks[0]} is queued.` : `${tasks.length} runs are queued.`);
  } catch (error) {
    if (!error.cut) retry = null; // keep the id only if the connection failed, since the request may have been accepted
    throw error;
  }
  await look();
}

byId("more").addEventListener("click", () => addSetting().querySelector("input").focus());
byId("post").addEventListener("submit", async (event) => {
  event.preventDefault();
  byId("send").disabled = true;
  say("Checking ...");
  await send().catch((error) => say(error.message, true));
  byId("send").disabled = false;
});
byId("repair").addEventListener("click", async () => {
  try {
    const { said } = await post("repair", {});
    say(said.join("; "));
    await look();
  } catch (error) {
    say(error.message, true);
  }
});
byId("close").addEventListener("click", () => byId("reader").close());
byId("with-token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value;
  sessionStorage.setItem("token", token);
  start();
});

async function start() {
  try {
    const params = await ask("params");
    byId("keys").replaceChildren(...Object.keys(params).map((key) => Object.assign(document.createElement("option"), { value: key })));
    await look();
    say("");
  } catch (error) {
    say(error.message, true);
  }
}

async function watch() {
  if (!document.hidden && byId("with-token").hidden) await look().catch((error) => say(error.message, true));
  setTimeout(watch, PAUSE);
}

addSetting();
await start();
setTimeout(watch, PAUSE);
