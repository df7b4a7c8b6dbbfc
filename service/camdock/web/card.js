// One camera on the page: its picture, its state in words, what can be done with it.

import { Picture } from "./pictures.js";
import { Settings } from "./settings.js";
import { ask, refusal } from "./token.js";
import { age, counted, duration, rate, reasonWords, say, stateWord } from "./words.js";

let ids = 0;

export class Card {
  #facts = new Map();

  constructor(name) {
    this.name = name;
    this.element = document.getElementById("card").content.firstElementChild.cloneNode(true);
    this.picture = new Picture(this.#find(".picture"), name);
    this.settings = new Settings(this.#find(".settings"), name);
    this.problem = this.#find(":scope .side > .problem");
    this.#name();
    this.#find(".snapshot").addEventListener("click", () => this.#snapshot());
    this.#fullScreen();
  }

  /** Its picture is on the way, and so is another state. */
  get waking() {
    return this.picture.mode !== "off" && passing(this.camera);
  }

  /** Show `camera` (CameraModel). Returns what is worth saying aloud, empty when nothing is. */
  show(camera) {
    const before = this.camera;
    this.camera = camera;
    this.element.dataset.state = camera.state;
    say(this.#find(".word"), stateWord(camera.state));
    this.#find(".resting").hidden = camera.state !== "idle";
    this.#showReason(camera);
    this.#showFacts(camera);
    this.#showSize(camera.size);
    this.settings.show(camera.settings, camera.state === "live");
    this.picture.check(camera.viewers);
    return this.#news(before, camera);
  }

  /** Idle and starting lead to something else: they are written, not said. */
  #news(before, now) {
    if (passing(now)) return "";
    const told = this.told ?? (before && { ...before, state: "live" });
    this.told = now;
    if (!told) return "";
    if (told.state !== now.state) return `${now.name}: ${stateWord(now.state)}${now.reason ? `. ${now.reason.message}` : ""}`;
    // Over before the page asked again: seen only in the count.
    const code = Object.keys(now.restarts).find((one) => now.restarts[one] > (told.restarts[one] ?? 0));
    return code && now.state === "live" ? `${now.name}: ${reasonWords(code)}, live again` : "";
  }

  #find(selector) {
    return this.element.querySelector(selector);
  }

  #name() {
    const heading = this.#find(".name");
    heading.textContent = this.name;
    heading.id = `camera-${++ids}`;
    this.element.setAttribute("aria-labelledby", heading.id);
    this.element.dataset.camera = this.name;
    this.picture.img.alt = `Pictures of ${this.name}`;
    this.#find(".snapshot").setAttribute("aria-label", `Snapshot of ${this.name}`);
    this.#find(".full").setAttribute("aria-label", `Full screen, ${this.name}`);
    for (const part of [this.settings.form, this.#find("summary")]) part.setAttribute("aria-label", `Settings of ${this.name}`);
  }

  #showReason({ reason }) {
    this.#find(".reason").hidden = !reason;
    say(this.#find(".message"), reason?.message ?? "");
    const again = reason && !reason.retry ? "It will not come back by itself soon: somebody has to act." : "";
    say(this.#find(".hint"), [reason?.hint, again].filter(Boolean).join(" – "));
  }

  #showFacts(camera) {
    const { size, restarts, drops } = camera;
    this.#fact("Rate", rate(camera));
    this.#fact("Size", size ? `${size.width} × ${size.height}` : "");
    this.#fact("Picture's age", age(camera.age_s));
    this.#fact("Viewers", String(camera.viewers));
    this.#fact("Format", camera.format);
    this.#fact(camera.device ? "Device" : "Source", camera.device || camera.source, "device");
    this.#fact(`${stateWord(camera.state)} for`, duration(Math.max(0, Date.now() / 1000 - camera.since)), "since");
    this.#fact("Interruptions", Object.keys(restarts).length ? counted(restarts, reasonWords) : "");
    this.#fact("Failures in a row", camera.failures > 1 ? String(camera.failures) : "");
    this.#fact("Thrown away", Object.keys(drops).length ? counted(drops, reasonWords) : "");
  }

  #fact(title, text, key = title) {
    if (!this.#facts.has(key)) {
      const row = document.createElement("div");
      row.append(document.createElement("dt"), document.createElement("dd"));
      this.#facts.set(key, row);
      this.#find(".facts").append(row);
    }
    const row = this.#facts.get(key);
    row.hidden = text === "";
    say(row.firstElementChild, title);
    say(row.lastElementChild, text);
  }

  #showSize(size) {
    const ratio = size ? `${size.width} / ${size.height}` : "";
    if (this.ratio !== ratio) this.#find(".stage").style.setProperty("--ratio", (this.ratio = ratio) || "4 / 3");
  }

  /** Fetched, not linked to: a refusal can be shown in words, and the token stays out of the history. */
  async #snapshot() {
    const button = this.#find(".snapshot");
    if (button.ariaDisabled === "true") return;
    button.ariaDisabled = "true"; // `disabled` would take the focus away
    try {
      const response = await ask(`${this.picture.path}/snapshot`);
      if (response.ok) save(await response.blob(), fileName(this.name, response.headers.get("X-Timestamp")));
      say(this.problem, response.ok ? "" : await refusal(response));
    } catch {
      say(this.problem, "No snapshot: the service did not answer.");
    } finally {
      button.ariaDisabled = "false";
    }
  }

  #fullScreen() {
    const button = this.#find(".full");
    button.hidden = !document.fullscreenEnabled; // an iPhone has it for videos only
    const stage = this.#find(".stage");
    button.addEventListener("click", () => stage.requestFullscreen().catch(() => {}));
    stage.addEventListener("fullscreenchange", () => { // the browser took the focus away
      if (!document.fullscreenElement) button.focus({ preventScroll: true });
    });
    stage.addEventListener("dblclick", () => {
      if (document.fullscreenElement) document.exitFullscreen();
      else if (document.fullscreenEnabled) stage.requestFullscreen().catch(() => {});
    });
  }
}

function passing({ state }) {
  return state === "idle" || state === "starting";
}

function fileName(camera, timestamp) {
  const moment = timestamp ? new Date(Number(timestamp) * 1000) : new Date();
  return `${camera}-${moment.toISOString().slice(0, 19).replaceAll(":", "-")}Z.jpg`;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
