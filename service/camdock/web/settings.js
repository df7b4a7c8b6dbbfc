// A camera's settings: a control for each one that its limits name, and what the service says about a change.

import { ask, refusal } from "./token.js";
import { microseconds, say } from "./words.js";

const NUMBERS = {
  exposure_us: { title: "Exposure", unit: "µs", words: microseconds, rounded: (value) => Math.round(value) },
  gain: { title: "Gain", unit: "×", words: (value) => `${Number(value.toFixed(2))}×`, rounded: (value) => Number(value.toFixed(2)) },
};
const SLIDER_STEPS = 1000;
const LOGARITHMIC_FROM = 100; // a range over more than this factor is shown by its logarithm

let ids = 0;

export class Settings {
  #controls = new Map();
  #live = false;
  #report = null;

  constructor(details, name) {
    this.details = details;
    this.form = details.querySelector("form");
    this.path = `cameras/${encodeURIComponent(name)}/settings`;
    this.form.addEventListener("submit", (event) => event.preventDefault()); // Return in a field is its change event
  }

  /** Show `report` (SettingsReport); `live`: the device's own values count. */
  show(report, live) {
    this.#report = report;
    this.#live = live;
    const values = { ...report.wanted };
    for (const [name, value] of Object.entries(report.applied)) if (live || values[name] === null) values[name] = value;
    for (const name of ["auto_exposure", "exposure_us", "gain"]) {
      const limits = report.limits[name];
      if (limits) this.#control(name).show(values[name], limits, report.wanted[name], values.auto_exposure);
      else this.#remove(name);
    }
    this.details.hidden = this.#controls.size === 0;
  }

  #control(name) {
    if (!this.#controls.has(name)) {
      const send = (value) => this.#send(name, value);
      const after = () => this.show(this.#report, this.#live);
      const control = name in NUMBERS
        ? new NumberControl(NUMBERS[name], send, after)
        : new SwitchControl("Automatic exposure", send, after);
      control.element.dataset.setting = name;
      this.#controls.set(name, control);
      this.form.append(control.element);
    }
    return this.#controls.get(name);
  }

  #remove(name) {
    this.#controls.get(name)?.element.remove();
    this.#controls.delete(name);
  }

  /** Returns what went wrong, in words; empty when it is done. */
  async #send(name, value) {
    try {
      const response = await ask(this.path, {
        method: "PUT",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ [name]: value }),
      });
      if (!response.ok) return await refusal(response);
      this.#report = await response.json();
      return "";
    } catch {
      return "The service did not answer; nothing is known to have changed.";
    }
  }
}

/** One change at a time; of those made meanwhile only the last one is sent. */
class Sending {
  #busy = false;
  #next = null;

  constructor(send, done) {
    this.send = send;
    this.done = done;
  }

  get busy() {
    return this.#busy;
  }

  async put(value) {
    this.#next = { value };
    if (this.#busy) return;
    this.#busy = true;
    let problem = "";
    while (this.#next) {
      const { value: newest } = this.#next;
      this.#next = null;
      problem = await this.send(newest);
    }
    this.#busy = false;
    this.done(problem);
  }
}

class NumberControl {
  #value = null;
  #limits = [0, 1];
  #touched = false; // what stands there is not what the camera does: typed and not sent, or refused

  constructor(kind, send, after) {
    this.kind = kind;
    this.element = document.getElementById("number-setting").content.firstElementChild.cloneNode(true);
    [this.range, this.number] = this.element.querySelectorAll("input");
    this.note = this.element.querySelector(".note");
    this.problem = this.element.querySelector(".problem");
    this.sending = new Sending(send, (problem) => {
      this.#done(problem);
      after();
    });
    this.#label();
    this.range.addEventListener("input", () => this.#typed(this.#fromSlider()));
    this.range.addEventListener("change", () => this.#commit());
    this.number.addEventListener("input", () => { this.#touched = true; });
    this.number.addEventListener("change", () => this.#commit());
    this.element.addEventListener("keydown", (event) => { if (event.key === "Escape") this.#revert(); });
  }

  show(value, limits, wanted, automatic) {
    this.#value = value;
    this.#limits = limits;
    [this.number.min, this.number.max] = limits;
    say(this.note, this.#noteOn(value, wanted, automatic));
    if (!this.#touched && !this.sending.busy) this.#put(value);
  }

  #label() {
    const { title, unit } = this.kind;
    this.number.id = `setting-${++ids}`;
    this.problem.id = `${this.number.id}-problem`;
    this.note.id = `${this.number.id}-note`;
    const label = this.element.querySelector("label");
    label.textContent = title;
    label.htmlFor = this.number.id;
    this.range.setAttribute("aria-label", `${title}, slider`);
    this.number.setAttribute("aria-describedby", `${this.problem.id} ${this.note.id}`);
    this.element.querySelector(".unit").textContent = unit;
  }

  #noteOn(value, wanted, automatic) {
    const [lowest, highest] = this.#limits.map(this.kind.words);
    const between = `${lowest} to ${highest}`;
    if (automatic) return `${between}; chosen by the camera now`;
    if (value !== null && wanted !== null && Math.abs(value - wanted) > 1e-6) {
      return `${between}; asked for ${this.kind.words(wanted)}, the camera does ${this.kind.words(value)}`;
    }
    return value === null ? between : `${between}; now ${this.kind.words(value)}`;
  }

  #put(value) {
    this.number.value = value ?? "";
    this.#slide(value ?? this.#limits[0]);
  }

  #typed(value) {
    this.#touched = true;
    this.number.value = value;
    this.range.setAttribute("aria-valuetext", this.kind.words(value));
  }

  #commit() {
    if (this.number.value === "") return this.#revert();
    this.#touched = true;
    this.#slide(Number(this.number.value));
    this.sending.put(Number(this.number.value));
  }

  #done(problem) {
    this.#touched = problem !== "";
    say(this.problem, problem);
    this.number.setAttribute("aria-invalid", String(this.#touched));
  }

  #revert() {
    this.#done("");
    this.#put(this.#value);
  }

  get #logarithmic() {
    const [lowest, highest] = this.#limits;
    return lowest > 0 && highest / lowest > LOGARITHMIC_FROM;
  }

  #slide(value) {
    const [lowest, highest] = this.#limits;
    const inside = Math.min(highest, Math.max(lowest, value));
    const part = this.#logarithmic
      ? Math.log(inside / lowest) / Math.log(highest / lowest)
      : (inside - lowest) / (highest - lowest || 1);
    this.range.value = Math.round(part * SLIDER_STEPS);
    this.range.setAttribute("aria-valuetext", this.kind.words(inside));
  }

  #fromSlider() {
    const [lowest, highest] = this.#limits;
    const part = this.range.valueAsNumber / SLIDER_STEPS;
    if (part === 0) return lowest;
    if (part === 1) return highest;
    const value = this.#logarithmic ? lowest * (highest / lowest) ** part : lowest + part * (highest - lowest);
    return this.kind.rounded(Number(value.toPrecision(3)));
  }
}

class SwitchControl {
  constructor(title, send, after) {
    this.element = document.getElementById("switch-setting").content.firstElementChild.cloneNode(true);
    this.box = this.element.querySelector("input");
    this.problem = this.element.querySelector(".problem");
    this.element.querySelector(".title").textContent = title;
    this.sending = new Sending(send, (problem) => {
      say(this.problem, problem);
      after();
    });
    this.box.addEventListener("change", () => this.sending.put(this.box.checked));
  }

  show(value) {
    if (!this.sending.busy) this.box.checked = Boolean(value);
  }
}
