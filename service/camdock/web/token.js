// Where the service is, and who we are to it: a cookie that no script sees, or a token from the address, which is kept
// for this tab and sent with everything.
// Shared by the page and /docs.

const KEY = "camdock-token";
const ROOT = new URL("..", import.meta.url); // also right below a proxy's prefix
let kept = ""; // where the browser gives no sessionStorage

export function token() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return kept;
  }
}

export function keepToken(value) {
  kept = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch { /* `kept` has it until the page is closed */ }
}

/** Take ?token= out of the address; `leave`: keep it there too, where a reload needs it. */
export function takeToken({ leave = false } = {}) {
  const here = new URL(location.href);
  if (!here.searchParams.has("token")) return;
  keepToken(here.searchParams.get("token"));
  if (leave) return;
  here.searchParams.delete("token");
  history.replaceState(null, "", here);
}

/** The address of `path` for fetch, which carries the token in a header. */
export function address(path) {
  return new URL(path, ROOT);
}

/** The address of `path` for an <img> or a link, which can carry it in the address only. */
export function linkTo(path, parameters = {}) {
  const url = address(path);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  if (token()) url.searchParams.set("token", token());
  return url.href;
}

/** fetch() with the token and a limit in time. */
export function ask(path, { withinMs = 5000, headers = {}, ...options } = {}) {
  // fetch refuses other characters in a header; no token of the service has them.
  const bearer = /^[\x21-\x7e]+$/.test(token()) ? { Authorization: `Bearer ${token()}` } : {};
  return fetch(address(path), {
    cache: "no-store",
    signal: AbortSignal.timeout(withinMs),
    // X-Requested-With: a refusal is for this page to show, not for the browser's own dialog.
    headers: { "X-Requested-With": "camdock", ...bearer, ...headers },
    ...options,
  });
}

/** Show a token once, for a cookie. Where the browser keeps no cookie the token is kept for this tab. */
export async function logIn(value) {
  keepToken("");
  const body = JSON.stringify({ token: value });
  const response = await ask("login", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (response.ok && (await ask("cameras")).status === 401) keepToken(value);
  return response;
}

/** Forget the cookie and the token. */
export async function logOut() {
  keepToken("");
  await ask("logout", { method: "POST" });
}

/** What a refusal says, for people: a problem document's detail and hint, or its status. */
export async function refusal(response) {
  try {
    const problem = await response.json();
    return [problem.detail, problem.hint].filter(Boolean).join(" – ") || `The service answered ${response.status}.`;
  } catch {
    return `The service answered ${response.status}.`;
  }
}
