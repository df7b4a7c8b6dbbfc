// The page: asks the service once a second what its cameras do, and keeps a card for each.

import { Card } from "./card.js";
import { Pictures } from "./pictures.js";
import { ask, linkTo, logIn, logOut, refusal, takeToken, token } from "./token.js";
import { say } from "./words.js";

const ASK_EVERY_MS = 1000;
const ASK_WAKING_EVERY_MS = 250;

const find = (id) => document.getElementById(id);
const pictures = new Pictures();
const cards = new Map();
let timer = 0;
let asking = false;
let answered = false; // whether the last question was answered with the cameras
let tried = false; // whether a token of the user's was refused or is being tried

function main() {
  takeToken();
  tried = token() !== "";
  showLinks();
  find("token-form").addEventListener("submit", enterToken);
  find("forget").addEventListener("click", leave);
  document.addEventListener("visibilitychange", lookOrNot);
  addEventListener("pagehide", () => pictures.want(false));
  addEventListener("pageshow", lookOrNot);
  lookOrNot();
}

/** A tab that nobody sees asks nothing and holds no stream. */
function lookOrNot() {
  pictures.want(!document.hidden);
  clearTimeout(timer);
  if (!document.hidden) turn();
}

async function turn() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  const waiting = await askOnce();
  asking = false;
  const soon = [...cards.values()].some((card) => card.waking);
  if (!document.hidden && !waiting) timer = setTimeout(turn, soon ? ASK_WAKING_EVERY_MS : ASK_EVERY_MS);
}

/** Returns true when there is nothing to ask before somebody has entered a token. */
async function askOnce() {
  let response;
  try {
    response = await ask("cameras");
    if (response.ok) {
      showCameras(await response.json());
      return false;
    }
  } catch {
    if (!document.hidden) showSilence("The service does not answer. This page asks again every second.");
    return false;
  }
  if (response.status === 401) {
    showTokenForm();
    return true;
  }
  showSilence(`The service answers with an error: ${await refusal(response)}`);
  return false;
}

// --- answers -------------------------------------------------------------------------------------------------------

function showCameras(cameras) {
  const back = !answered;
  if (back) pictures.restart(); // an <img> does not notice that its service has gone
  answered = true;
  tried = false;
  document.body.classList.remove("silent");
  find("banner").hidden = true;
  find("token-form").hidden = true;
  find("loading").hidden = cameras.length > 0;
  say(find("loading"), "No camera is configured.");
  removeCards(new Set(cameras.map((camera) => camera.name)));
  const news = cameras.map((camera) => showCamera(camera, cameras.length === 1)).filter(Boolean);
  if (news.length) say(find("news"), news.join("; "));
  showSummary(cameras);
  if (back) showService();
}

function showCamera(camera, alone) {
  let card = cards.get(camera.name);
  if (!card) {
    card = new Card(camera.name);
    cards.set(camera.name, card);
    find("cameras").append(card.element);
    pictures.add(card.picture);
    card.settings.details.open = alone;
  }
  return card.show(camera);
}

function removeCards(staying) {
  for (const [name, card] of cards) {
    if (staying.has(name)) continue;
    pictures.remove(card.picture);
    card.element.remove();
    cards.delete(name);
  }
}

function showSummary(cameras) {
  const count = (state) => cameras.filter((camera) => camera.state === state).length;
  const idle = count("idle") ? `, ${count("idle")} idle` : "";
  say(find("summary"), cameras.length === 1 ? "" : `${count("live")} of ${cameras.length} cameras live${idle}`);
}

function showSilence(text) {
  answered = false;
  find("loading").hidden = true;
  document.body.classList.add("silent");
  say(find("summary"), "");
  if (find("banner").hidden) find("banner").textContent = ""; // so that the text below is new, and read out
  find("banner").hidden = false;
  say(find("banner"), text);
}

async function showService() {
  try {
    const { version, by } = await (await ask("health")).json();
    say(find("version"), version ?? "");
    find("forget").hidden = by !== "cookie" && token() === "";
  } catch { /* the next answer after a silence asks again */ }
}

// --- the token -----------------------------------------------------------------------------------------------------

function showTokenForm() {
  answered = false;
  removeCards(new Set());
  document.body.classList.remove("silent");
  find("banner").hidden = true;
  find("loading").hidden = true;
  find("forget").hidden = true;
  say(find("summary"), "");
  say(find("version"), "");
  find("token-form").hidden = false;
  say(find("token-problem"), tried ? "This token is not accepted." : "");
  find("token").setAttribute("aria-invalid", String(tried));
  find("token").focus();
}

async function enterToken(event) {
  event.preventDefault();
  say(find("token-problem"), "");
  const value = find("token").value.trim();
  find("token").value = "";
  let response;
  try {
    response = await logIn(value);
  } catch {
    say(find("token-problem"), "The service does not answer. Try again.");
    return;
  }
  if (response.ok || response.status === 401) {
    tried = true;
    showLinks();
    turn();
  } else {
    say(find("token-problem"), await refusal(response));
  }
}

async function leave() {
  clearTimeout(timer);
  try {
    await logOut();
  } catch { /* the cookie stays; the next answer shows it */ }
  showLinks();
  turn();
}

function showLinks() {
  find("docs").href = linkTo("docs");
}

main();
