// /docs: the API's description (/openapi.json) for people.

import { address, ask, linkTo, refusal, takeToken } from "./token.js";

const find = (id) => document.getElementById(id);
const METHODS = ["get", "put", "post", "patch", "delete"];
const BEARER = "-H 'Authorization: Bearer TOKEN'"; // never the token itself: this page gets copied and shown
const JSON_TYPE = "application/json";

let schemas = {};
let camera = "camera"; // a name for the examples
let guarded = false; // whether a token is needed, also where a cookie stands for it: curl has no cookie

async function main() {
  takeToken({ leave: true }); // a reload of this page asks for it again
  let description;
  try {
    const response = await ask("openapi.json");
    if (!response.ok) return showProblem(await refusal(response));
    description = await response.json();
    camera = (await (await ask("cameras")).json())[0]?.name ?? camera;
    guarded = Boolean((await (await ask("health")).json()).by);
  } catch {
    return showProblem("The service does not answer. Load this page again once it does.");
  }
  schemas = description.components?.schemas ?? {};
  find("raw").href = linkTo("openapi.json");
  find("version").textContent = description.info.version;
  showStart(description.info.description);
  for (const [tag, operations] of groups(description.paths)) showGroup(tag, operations);
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

function showProblem(text) {
  find("banner").textContent = text;
  find("banner").hidden = false;
}

// --- building blocks -----------------------------------------------------------------------------------------------

/** make("p.hint", "text", node, ...): an element with children; text stays text. */
function make(kind, ...children) {
  const [tag, ...classes] = kind.split(".");
  const element = document.createElement(tag);
  element.className = classes.join(" ");
  element.append(...children.filter((child) => child !== null && child !== ""));
  return element;
}

/** Text with `code` in it. */
function prose(text) {
  return (text ?? "").split("`").map((part, index) => (index % 2 ? make("code", part) : part));
}

function paragraphs(text) {
  return (text ?? "").trim().split(/\n\s*\n/).filter(Boolean).map((part) => make("p", ...prose(part)));
}

function rows(entries) {
  return make("dl.rows", ...entries.map(([title, ...body]) => make("div", make("dt", title), make("dd", ...body))));
}

function line(text) {
  const pre = make("pre", text);
  const button = make("button", "Copy");
  button.type = "button";
  button.setAttribute("aria-label", `Copy: ${text}`);
  button.addEventListener("click", () => copy(pre, button));
  return make("div.example", pre, button);
}

function answer(text) {
  const pre = make("pre.answer", text);
  pre.tabIndex = 0; // it may scroll: the keyboard must reach it
  return make("div.example", pre);
}

async function copy(pre, button) {
  try {
    await navigator.clipboard.writeText(pre.textContent);
  } catch {
    // Browsers give no clipboard to a page that came over plain http from another machine.
    getSelection().selectAllChildren(pre);
    document.execCommand("copy");
    getSelection().removeAllRanges();
  }
  button.textContent = "Copied";
  find("news").textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; find("news").textContent = ""; }, 2000);
}

function entry(id, title, indent) {
  const link = make("a", title);
  link.href = `#${id}`;
  find("contents").append(indent ? link : make("strong", link));
}

// --- what to type first --------------------------------------------------------------------------------------------

function showStart(text) {
  const here = (path) => address(path).href;
  const open = guarded ? ` ${BEARER}` : "";
  const inLink = guarded ? "?token=TOKEN" : "";
  const steps = [
    ["Is it there?", "No token is needed for this one.", `curl ${here("health")}`],
    ["Moving pictures in a page of your own", "An MJPEG stream; players, OctoPrint and Home Assistant take the address too.",
      `<img src="${here("stream")}${inLink}" alt="camera">`],
    ["One picture", "At most 0.3 s old.", `curl -f -o snapshot.jpg${open} ${here("snapshot")}`],
    ["Several cameras", "Each has a name; a path without a name means the first one. Start the service with",
      "CAMDOCK_SOURCES='front=v4l2:/dev/video0 nest=synthetic:' camdock", "and see what they do with",
      `curl${open} ${here("cameras")}`, `curl -f -o ${camera}.jpg${open} ${here(cameraPath("snapshot"))}`],
    ["With a token", "When `CAMDOCK_TOKEN` is set, programs send it in a header, and links and <img> behind the " +
      "address. In the lines of this page `TOKEN` stands for it.",
      `curl ${BEARER} ${here("cameras")}`, `<img src="${here("stream")}?token=TOKEN" alt="camera">`],
  ];
  entry("start", "What to type first");
  const heading = make("h2", "What to type first");
  heading.id = "start";
  find("text").append(heading, ...paragraphs(text));
  for (const [title, ...parts] of steps) {
    const body = parts.map((part) => (/^(curl|<img|CAMDOCK)/.test(part) ? line(part) : make("p", ...prose(part))));
    find("text").append(make("section.block", make("h3", title), ...body));
  }
}

function cameraPath(what) {
  return `cameras/${encodeURIComponent(camera)}/${what}`;
}

// --- every endpoint ------------------------------------------------------------------------------------------------

/** tag -> its operations, in the description's order */
function groups(paths) {
  const found = new Map();
  for (const [path, methods] of Object.entries(paths)) {
    for (const method of METHODS.filter((one) => methods[one])) {
      const tag = methods[method].tags?.[0] ?? "other";
      if (!found.has(tag)) found.set(tag, []);
      found.get(tag).push({ path, method, ...methods[method] });
    }
  }
  return found;
}

function showGroup(tag, operations) {
  const heading = make("h2", tag);
  heading.id = `group-${tag}`;
  entry(heading.id, tag);
  find("text").append(heading, ...operations.map(endpoint));
}

function endpoint(operation) {
  const { method, path, summary, description, parameters = [], requestBody } = operation;
  const section = make("section.endpoint");
  section.id = `${method}${path.replace(/[^a-z0-9]+/gi, "-")}`.replace(/-$/, "");
  entry(section.id, `${method === "get" ? "" : `${method.toUpperCase()} `}${path}`, true);
  section.append(make("h3", make(`span.method.${method}`, method.toUpperCase()), make("code", path)));
  if (summary) section.append(make("p.sentence", ...prose(summary)));
  section.append(...paragraphs(description));
  if (parameters.length) section.append(make("h4", "Parameters"), rows(parameters.map(parameter)));
  section.append(...body(requestBody));
  section.append(make("h4", "Try it"), line(curl(operation)));
  section.append(make("h4", "Answers"), rows(Object.entries(operation.responses).map(response)));
  const example = exampleAnswer(operation.responses["200"]);
  if (example) section.append(make("details", make("summary", "Example answer"), answer(example)));
  return section;
}

function parameter({ name, in: place, required, description, schema, content }) {
  const where = place === "path" ? "in the path" : place;
  const notes = [kind(schema ?? content[JSON_TYPE].schema), where, required ? "" : "optional"].filter(Boolean);
  return [name, ...prose(description), make("span.kind", notes.join(", "))];
}

function body({ description, content = {} } = {}) {
  const [[type, { schema }] = ["", {}]] = Object.entries(content);
  if (!type) return [];
  const named = fields(schema);
  const word = type === JSON_TYPE ? "JSON" : named.length ? "a form" : "a picture";
  const pictures = Object.keys(content).filter((one) => one.startsWith("image/")).join(", ");
  if (pictures) named.push([named.length ? "or as it is" : "as it is", "a picture", make("span.kind", pictures)]);
  return [make("h4", `Body (${word})`), ...paragraphs(description), rows(named)];
}

function fields(schema) {
  const { properties = {}, required = [] } = resolve(schema);
  return Object.entries(properties).map(([name, field]) => {
    const notes = [kind(field), required.includes(name) ? "" : "optional"].filter(Boolean);
    return [name, ...prose(field.description), make("span.kind", notes.join(", "))];
  });
}

function response([status, { description, content = {} }]) {
  const [type = ""] = Object.keys(content);
  return [status, ...prose(description === "Successful Response" ? "Done" : description), make("span.kind", type)];
}

/** A path with its parameters filled in. */
function filled(path, parameters) {
  const value = (name) => (name === "name" ? camera : example(parameters.find((one) => one.name === name).schema));
  return path.replace(/{(\w+)}/g, (_, name) => encodeURIComponent(value(name)));
}

/** What a line sends: JSON, a form, or a picture as it is. */
function sent({ content = {} } = {}) {
  const [[type, { schema }] = ["", {}]] = Object.entries(content);
  if (!type) return [];
  if (type === JSON_TYPE) return [`-H 'Content-Type: ${type}'`, `-d '${JSON.stringify(example(schema))}'`];
  if (!schema.properties) return [`-H 'Content-Type: ${type}'`, "--data-binary @photo.jpg"];
  return Object.entries(schema.properties).map(([name, field]) =>
    (field.format === "binary" ? `-F ${name}=@photo.jpg` : `-F '${name}=${example(field)}'`));
}

function curl({ method, path, parameters = [], requestBody, responses, security }) {
  const asked = filled(path, parameters);
  const url = address(asked.slice(1)).href;
  const type = Object.keys(responses["200"]?.content ?? {})[0] ?? "";
  const words = ["curl"];
  if (guarded && responses["401"] && security?.length !== 0) words.push(BEARER);
  if (method !== "get") words.push(`-X ${method.toUpperCase()}`);
  words.push(...sent(requestBody));
  if (type === "image/jpeg") words.push(`-f -o ${asked.split("/").at(-1).replace(/^[^.]+$/, "$&.jpg")}`);
  if (type.startsWith("multipart/")) {
    const counted = parameters.some(({ name }) => name === "frames");
    return [...words, "-o stream.mjpeg", counted ? `'${url}?frames=100'` : `--max-time 5 ${url}`].join(" ");
  }
  return [...words, url].join(" ");
}

// --- schemas -------------------------------------------------------------------------------------------------------

/** A schema with its reference followed and, of "this or null", this. */
function resolve(schema = {}) {
  if (schema.$ref) return resolve(schemas[schema.$ref.split("/").at(-1)]);
  const some = (schema.anyOf ?? schema.oneOf)?.find(({ type }) => type !== "null");
  return some ? { ...resolve(some), ...(schema.examples && { examples: schema.examples }) } : schema;
}

function kind(schema) {
  const { type, items, enum: values, minimum, maximum, default: usual, format, contentMediaType } = resolve(schema);
  const words = [values ? values.join(" | ") : type === "array" && items?.type ? `${items.type}s` : (type ?? "")];
  if (format === "binary") words[0] = "file";
  if (contentMediaType === JSON_TYPE) words[0] = "JSON";
  if (minimum !== undefined || maximum !== undefined) words.push(`${minimum ?? "…"} to ${maximum ?? "…"}`);
  const value = schema?.default ?? usual;
  if (value !== undefined && value !== null) words.push(`default ${JSON.stringify(value)}`);
  return words.filter(Boolean).join(", ");
}

function exampleAnswer(success) {
  const [type, media] = Object.entries(success?.content ?? {})[0] ?? [];
  if (type === "text/plain") return media.example ?? "";
  return type === JSON_TYPE && media.schema ? JSON.stringify(example(media.schema), null, 2) : "";
}

/** A value that fits the schema: its own example, or one put together from its parts. */
function example(schema) {
  const whole = resolve(schema);
  if (whole.examples?.length) return whole.examples[0];
  if (whole.default !== undefined) return whole.default;
  if (whole.enum) return whole.enum[0];
  if (whole.type === "array") return whole.items ? [example(whole.items)] : [];
  if (whole.properties) {
    return Object.fromEntries(Object.entries(whole.properties).map(([name, part]) => [name, example(part)]));
  }
  return { integer: 0, number: 0, boolean: true, string: "…", null: null }[whole.type] ?? {};
}

main();
