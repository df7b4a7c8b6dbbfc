// The moving pictures: which cards may hold a stream, and what the others show.
//
// A browser opens at most 6 connections to one HTTP/1.1 host, for all tabs together, and a stream holds its
// connection for as long as it runs. With 6 streams nothing else would ever be answered: no state, no settings. So
// at most 4 pictures on the screen stream; the others on the screen are snapshots, renewed once a second over one
// connection, one after the other; the last connection is for what the page asks and says. In a tab that nobody looks
// at nothing is held, nor, of more than 4, what is scrolled away. A camera's state is never asked: to open its stream
// is what wakes an idle one.

import { ask, linkTo } from "./token.js";

const MAX_STREAMS = 4;
const STILLS_EVERY_MS = 1000;
const RETRY_FIRST_MS = 500;
const RETRY_LONGEST_MS = 10_000;
const SETTLED_MS = 3000;

let addresses = 0; // a new address each time: a browser may answer the same one from a stream that it still holds

export class Picture {
  mode = "off";
  onScreen = true;
  #retryMs = RETRY_FIRST_MS;
  #timer = 0;
  #began = 0;
  #blob = "";

  constructor(img, name) {
    this.img = img;
    this.path = `cameras/${encodeURIComponent(name)}`;
    img.addEventListener("load", () => {
      this.#retryMs = RETRY_FIRST_MS;
      img.classList.remove("broken");
    });
    img.addEventListener("error", () => this.#failed());
  }

  show(mode) {
    if (mode === this.mode) return;
    this.mode = mode;
    if (mode === "stream") this.restart();
    else this.#stop(mode === "off");
  }

  restart() {
    if (this.mode !== "stream") return;
    this.#stop(false);
    this.#began = performance.now();
    this.img.src = linkTo(`${this.path}/stream`, { n: ++addresses });
  }

  /** Browsers report no error when a stream ends in good order: nobody looking, by the service's count, is a sign. */
  check(viewers) {
    if (this.mode === "stream" && viewers === 0 && performance.now() - this.#began > SETTLED_MS) this.restart();
  }

  async renew() {
    try {
      const response = await ask(`${this.path}/snapshot?allow_offline=true`, { withinMs: 2500 });
      if (!response.ok) return;
      const blob = await response.blob();
      if (this.mode !== "stills") return;
      this.#stop(false);
      this.img.src = this.#blob = URL.createObjectURL(blob);
    } catch { /* the next round tries again; the page's own question finds out what is wrong */ }
  }

  close() {
    this.show("off");
  }

  #failed() {
    this.img.classList.add("broken");
    if (this.mode !== "stream" || this.#timer) return;
    this.#timer = setTimeout(() => this.restart(), this.#retryMs);
    this.#retryMs = Math.min(RETRY_LONGEST_MS, this.#retryMs * 2);
  }

  #stop(clear) {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (clear) this.img.removeAttribute("src"); // this ends the connection
    if (this.#blob) URL.revokeObjectURL(this.#blob);
    this.#blob = "";
  }
}

/** All pictures of the page, and who of them may stream. */
export class Pictures {
  #all = [];
  #wanted = true;
  #observer = new IntersectionObserver((entries) => this.#moved(entries), { rootMargin: "100px" });

  constructor() {
    this.#renewStills();
  }

  add(picture) {
    this.#all.push(picture);
    this.#observer.observe(picture.img.parentElement);
    this.share();
  }

  remove(picture) {
    this.#observer.unobserve(picture.img.parentElement);
    this.#all = this.#all.filter((other) => other !== picture);
    picture.close();
    this.share();
  }

  /** false: nobody looks, or nobody may. */
  want(wanted) {
    this.#wanted = wanted;
    this.share();
  }

  restart() {
    for (const picture of this.#all) picture.restart();
  }

  share() {
    const few = this.#all.length <= MAX_STREAMS;
    let streams = 0;
    const modes = new Map();
    for (const picture of this.#all) {
      if (!this.#wanted || !(few || picture.onScreen)) modes.set(picture, "off");
      else modes.set(picture, ++streams <= MAX_STREAMS ? "stream" : "stills");
    }
    // Connections are given back before others are taken.
    for (const [picture, mode] of modes) if (mode !== "stream") picture.show(mode);
    for (const [picture, mode] of modes) if (mode === "stream") picture.show(mode);
  }

  #moved(entries) {
    for (const entry of entries) {
      const picture = this.#all.find((one) => one.img.parentElement === entry.target);
      if (picture) picture.onScreen = entry.isIntersecting;
    }
    this.share();
  }

  async #renewStills() {
    for (;;) {
      const began = performance.now();
      for (const picture of this.#all) if (picture.mode === "stills") await picture.renew();
      const restMs = STILLS_EVERY_MS - (performance.now() - began);
      await new Promise((done) => setTimeout(done, Math.max(50, restMs)));
    }
  }
}
