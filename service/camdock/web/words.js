// Numbers and codes in words.

const REASONS = {
  source_missing: "device not found",
  source_busy: "device in use",
  source_stalled: "no picture in time",
  source_failed: "driver reported an error",
  source_denied: "access denied",
  worker_died: "driver process died",
  driver_missing: "driver library missing",
};

export const STATES = {
  starting: "Starting",
  live: "Live",
  idle: "Idle",
  stalled: "Stalled",
  offline: "Offline",
};

export function reasonWords(code) {
  return REASONS[code] ?? code.replaceAll("_", " ");
}

export function stateWord(state) {
  return STATES[state] ?? state;
}

export function rate({ state, fps, fps_promised: promised }) {
  if (state !== "live") return "";
  const measured = fps.toFixed(fps < 9.95 ? 1 : 0);
  const differs = promised && Math.abs(fps - promised) > promised * 0.1;
  return differs ? `${measured} of ${Number(promised.toFixed(1))} per second` : `${measured} per second`;
}

export function age(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 0.1) return "under 0.1 s";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return duration(seconds);
}

export function duration(seconds) {
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** {"worker_died": 2} -> "2 (driver process died)" */
export function counted(counts, words) {
  const all = Object.entries(counts);
  if (all.length === 1) return `${all[0][1]} (${words(all[0][0])})`;
  const total = all.reduce((sum, [, count]) => sum + count, 0);
  return `${total} (${all.map(([code, count]) => `${count} × ${words(code)}`).join(", ")})`;
}

export function microseconds(value) {
  if (value < 1000) return `${value} µs`;
  if (value < 1e6) return `${Number((value / 1000).toPrecision(3))} ms`;
  return `${Number((value / 1e6).toPrecision(3))} s`;
}

/** Change text only when it differs: a screen reader hears of no change, a selection stays. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
