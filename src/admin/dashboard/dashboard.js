// What the dashboard does: takes the stream of /api/v1/live, keeps a minute of each figure, and shows the rows that are on
// the page. Everything is text in elements: nothing that a registry says is ever taken for markup.
"use strict";

const HISTORY = 60; // seconds of a plot
const PAGE = 25; // rows of a table
const SHOWN = 200; // events in the list
const KEPT = 1000; // events that are kept for the history of plugins

const $ = (id) => document.getElementById(id);

/** An element: its tag and classes ("td.num"), attributes, children. Functions are listeners. */
function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key, value);
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((it) => it !== null && it !== undefined));
  return element;
}

/** Writes only what is different, so that nothing loses its focus or selection. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
function classes(element, names) {
  if (element.className !== names) element.className = names;
}

// ---- figures ----

const whole = new Intl.NumberFormat("en");
function number(value) {
  if (value >= 10000) return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);
  return value >= 10 || Number.isInteger(value) ? whole.format(Math.round(value)) : value.toFixed(1);
}
function time(us) {
  if (!us) return "–";
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1e3).toFixed(us < 1e4 ? 1 : 0)} ms`;
  return `${(us / 1e6).toFixed(1)} s`;
}
function bytes(value) {
  return value < 1 << 30 ? `${Math.round(value / (1 << 20))} MiB` : `${(value / (1 << 30)).toFixed(1)} GiB`;
}
function ago(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}
const clock = (text) => new Date(text).toLocaleTimeString("en-GB");
const many = (count, word) => `${whole.format(count)} ${word}${count === 1 ? "" : "s"}`;

/** A figure that grows, as a rate with a minute of history. */
class Rate {
  constructor() { this.last = null; this.now = 0; this.past = []; }
  update(total, seconds) {
    // A total that is smaller belongs to another process or version, and begins again.
    this.now = this.last === null || total < this.last || !seconds ? 0 : (total - this.last) / seconds;
    this.last = total;
    this.push(this.now);
  }
  push(value) {
    this.now = value;
    this.past.push(value);
    if (this.past.length > HISTORY) this.past.shift();
  }
}

const SVG = "http://www.w3.org/2000/svg";
function plot() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 60 20");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const [tag, name] of [["polygon", "sparkfill"], ["polyline", "spark"]]) {
    const shape = document.createElementNS(SVG, tag);
    shape.setAttribute("class", name);
    svg.append(shape);
  }
  return svg;
}
function draw(svg, past) {
  const top = Math.max(...past, 1e-9);
  const points = past.map((value, at) => `${60 - past.length + at + 1},${(18.5 - (value / top) * 16.5).toFixed(1)}`);
  const line = points.join(" ");
  if (svg.lastChild.getAttribute("points") === line) return;
  svg.lastChild.setAttribute("points", line);
  svg.firstChild.setAttribute("points", past.length ? `${60 - past.length + 1},20 ${line} 60,20` : "");
}

// ---- what is known ----

const services = new Map();
const plugins = new Map();
let routes = { explicit: [], auto: { count: 0 } };
let gateway = null;
let events = [];
let lastEvent = 0;
let previous = 0;
const tiles = { requests: new Rate(), errors: new Rate(), latency: new Rate(), inflight: new Rate(), cpu: new Rate() };
let bucketsBefore = [];

function takeState(state) {
  const seconds = previous ? (state.t - previous) / 1000 : 0;
  // Events come with a state of their own; less than half a second is no base for a rate.
  const counts = seconds === 0 || seconds > 0.5;
  if (counts) previous = state.t;
  if (gateway && gateway.started !== state.g.started) { services.clear(); plugins.clear(); bucketsBefore = []; }
  gateway = state.g;
  gateway.now = state.t;
  for (const told of state.s) {
    const service = services.get(told.n) ?? { rate: new Rate(), failed: new Rate(), each: new Map() };
    services.set(told.n, Object.assign(service, { name: told.n, source: told.src, panic: told.panic, endpoints: told.e }));
    service.text = [told.n, ...told.e.map((it) => `${it[0]} ${it[4]}`)].join(" ").toLowerCase();
  }
  for (const name of state.gone) services.delete(name);
  if (state.routes) { routes = state.routes; drawRoutes(); }
  if (state.p) {
    const names = new Set(state.p.plugins.map((it) => it.name));
    for (const name of plugins.keys()) if (!names.has(name)) plugins.delete(name);
    for (const told of state.p.plugins) {
      const plugin = plugins.get(told.name) ?? { rate: new Rate() };
      plugins.set(told.name, Object.assign(plugin, { told }));
    }
  }
  if (counts) for (const service of services.values()) {
    const sums = { picks: 0, failed: 0, inflight: 0, us: 0, weight: 0 };
    for (const it of service.endpoints) {
      const rate = service.each.get(it[0]) ?? new Rate();
      service.each.set(it[0], rate);
      rate.update(it[7], seconds);
      sums.picks += it[7]; sums.failed += it[8]; sums.inflight += it[5];
      sums.us += it[6] * (rate.now + 1e-6); sums.weight += it[6] ? rate.now + 1e-6 : 0;
    }
    service.rate.update(sums.picks, seconds);
    service.failed.update(sums.failed, seconds);
    service.inflight = sums.inflight;
    service.latency = sums.weight ? sums.us / sums.weight : 0;
  }
  for (const service of services.values()) {
    service.well = service.endpoints.filter((it) => it[1] === "healthy").length;
    service.trouble = service.well < service.endpoints.length || service.endpoints.length === 0 || service.panic;
  }
  if (counts) for (const plugin of plugins.values()) plugin.rate.update(plugin.told.picks ?? 0, seconds);
  if (counts) countGateway(seconds);
  drawGateway();
  drawServices();
  drawPlugins();
}

function countGateway(seconds) {
  const sum = gateway.classes.reduce((a, b) => a + b, 0);
  tiles.requests.update(sum, seconds);
  tiles.errors.update(gateway.classes[5], seconds);
  tiles.cpu.update(gateway.cpu, seconds);
  let inflight = 0;
  for (const service of services.values()) inflight += service.inflight ?? 0;
  tiles.inflight.push(inflight);
  const ten = bucketsBefore[0] ?? gateway.buckets;
  bucketsBefore.push(gateway.buckets);
  if (bucketsBefore.length > 10) bucketsBefore.shift();
  const lately = gateway.buckets.map((count, at) => count - ten[at]);
  tiles.p50 = quantile(lately, 0.5);
  tiles.p99 = quantile(lately, 0.99);
  tiles.latency.push(tiles.p99);
}

/** Within a bucket it is taken to be even, as Prometheus does. */
function quantile(buckets, share) {
  const rank = buckets.reduce((a, b) => a + b, 0) * share;
  if (!rank) return 0;
  let below = 0;
  for (let at = 0; at < buckets.length; at++) {
    if (below + buckets[at] >= rank) {
      const low = at ? gateway.bounds_us[at - 1] : 0;
      const high = gateway.bounds_us[at] ?? low;
      return low + (high - low) * ((rank - below) / buckets[at]);
    }
    below += buckets[at];
  }
  return gateway.bounds_us.at(-1);
}

// ---- the overview ----

function tile(id, title) {
  let element = $(`tile-${id}`);
  if (!element) {
    element = h("div.tile", { id: `tile-${id}` }, h("h3", {}, title), h("strong"), h("p"));
    element.append(plot());
    $("tiles").append(element);
  }
  return element;
}
function fill(id, title, value, note, rate, bad = false) {
  const element = tile(id, title);
  write(element.children[1], value);
  write(element.children[2], note);
  draw(element.lastChild, rate.past);
  classes(element, bad ? "tile bad" : "tile");
}
function drawGateway() {
  const total = gateway.classes.reduce((a, b) => a + b, 0);
  fill("requests", "Requests/s", number(tiles.requests.now), `${number(total)} so far`, tiles.requests);
  const share = tiles.requests.now ? (tiles.errors.now / tiles.requests.now) * 100 : 0;
  fill("errors", "Errors/s (5xx)", number(tiles.errors.now), `${share.toFixed(share < 10 ? 1 : 0)} % of requests`, tiles.errors, tiles.errors.now > 0);
  fill("latency", "Latency (99 %)", time(tiles.p99), `half of them below ${time(tiles.p50)}`, tiles.latency);
  fill("inflight", "In flight", number(tiles.inflight.now), `${many(gateway.connections, "connection")}, ${number(gateway.retries)} retries`, tiles.inflight);
  fill("cpu", "Processor", `${Math.round(tiles.cpu.now * 100)} %`, `${bytes(gateway.memory)}, ${many(gateway.workers, "worker")}, up ${ago(gateway.now - gateway.started)}`, tiles.cpu);
  write($("version"), gateway.version);
  const chips = gateway.registries.map(([name, state]) => [state === "live" ? "good" : "warn", `${name} ${state}`, false]);
  if (gateway.stopping) chips.unshift(["warn", "stopping", false]);
  else if (!gateway.ready) chips.unshift(["warn", "not ready", false]);
  for (const listener of gateway.listeners) chips.push(["", listener, true]);
  chips.unshift([connected ? "good" : "bad", connected ? "live" : "no connection", false]);
  const text = JSON.stringify(chips);
  if ($("state").dataset.text === text) return;
  $("state").dataset.text = text;
  $("state").replaceChildren(...chips.map(([kind, text, extra]) => h(`li.chip${kind && "." + kind}${extra ? ".extra" : ""}`, {}, text)));
}

// ---- tables ----

/** The buttons and the text below a table of pages. */
function pager(element, list, page, turn) {
  const pages = Math.max(1, Math.ceil(list.length / PAGE));
  const at = Math.min(page, pages - 1);
  if (pages === 1) { if (element.firstChild) element.replaceChildren(); return 0; }
  if (!element.firstChild) {
    element.append(
      h("button.quiet", { type: "button", click: () => turn(-1) }, "Previous"), h("span"),
      h("button.quiet", { type: "button", click: () => turn(1) }, "Next"));
  }
  const [before, text, after] = element.children;
  before.disabled = at === 0;
  after.disabled = at === pages - 1;
  write(text, `${whole.format(at * PAGE + 1)}–${whole.format(Math.min(list.length, (at + 1) * PAGE))} of ${whole.format(list.length)}`);
  return at;
}

/** Puts these rows into a table body, moving only what stands elsewhere. */
function arrange(body, rows) {
  rows.forEach((row, at) => { if (body.children[at] !== row) body.insertBefore(row, body.children[at] ?? null); });
  while (body.children.length > rows.length) body.lastChild.remove();
}
function nothing(text, columns) {
  return h("tr.nothing", {}, h("td", { colspan: columns }, text));
}

// ---- services ----

const view = { sort: "name", down: false, page: 0, open: new Set(), order: [], ordered: 0 };
const SORTS = {
  name: (a, b) => a.name.localeCompare(b.name, "en", { numeric: true }),
  health: (a, b) => a.well / (a.endpoints.length || 0.5) - b.well / (b.endpoints.length || 0.5) || b.trouble - a.trouble,
  rate: (a, b) => a.rate.now - b.rate.now,
  inflight: (a, b) => a.inflight - b.inflight,
  latency: (a, b) => a.latency - b.latency,
  failed: (a, b) => a.failed.now - b.failed.now,
};
const serviceRows = new Map();

function drawServices(reorder = false) {
  // Rows that change their places every second cannot be read, nor clicked at.
  const due = view.sort !== "name" && performance.now() - view.ordered > 3000;
  if (reorder || due || view.order.some((it) => !services.has(it.name)) || view.known !== services.size || view.show !== "all") {
    const words = $("services-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    view.show = $("services-show").value;
    view.order = [...services.values()].filter((it) =>
      words.every((word) => it.text.includes(word))
      && (view.show !== "trouble" || it.trouble) && (view.show !== "busy" || it.rate.now > 0));
    const sort = SORTS[view.sort];
    view.order.sort((a, b) => (view.down ? sort(b, a) : sort(a, b)) || SORTS.name(a, b));
    view.ordered = performance.now();
    view.known = services.size;
  }
  let endpoints = 0, out = 0;
  for (const service of services.values()) { endpoints += service.endpoints.length; out += service.endpoints.length - service.well; }
  const some = view.order.length < services.size ? `${whole.format(view.order.length)} of ` : "";
  write($("services-count"), `${some}${many(services.size, "service")}, ${many(endpoints, "endpoint")}${out ? `, ${whole.format(out)} out` : ""}`);
  view.page = pager($("services-pager"), view.order, view.page, (by) => { view.page += by; drawServices(); $("services").scrollIntoView(); });
  const rows = [];
  for (const service of view.order.slice(view.page * PAGE, (view.page + 1) * PAGE)) {
    const row = serviceRow(service);
    rows.push(row.main);
    if (view.open.has(service.name)) rows.push(row.inner);
  }
  if (!rows.length) rows.push(nothing(services.size ? "Nothing like that here." : "There are no services yet.", 7));
  arrange($("services-table").tBodies[0], rows);
  for (const name of serviceRows.keys()) if (!services.has(name)) serviceRows.delete(name);
}

function serviceRow(service) {
  let row = serviceRows.get(service.name);
  if (!row) {
    const toggle = () => {
      const open = view.open.delete(service.name) ? false : Boolean(view.open.add(service.name));
      row.button.setAttribute("aria-expanded", open);
      drawServices();
    };
    const cells = ["td", "td", "td.num", "td.plot", "td.num", "td.num", "td.num"].map((it) => h(it));
    ["", "", "Requests/s", "", "In flight", "Latency", "Failed/s"].forEach((it, at) => { if (it) cells[at].dataset.label = it; });
    const button = h("button.name", { type: "button", "aria-expanded": view.open.has(service.name), click: toggle }, service.name);
    cells[0].append(button);
    cells[1].append(h("span.dots", { "aria-hidden": "true" }), h("span"));
    cells[3].append(plot());
    const inner = h("tr.inner", {}, h("td", { colspan: 7 }, h("table", { "aria-label": `Endpoints of ${service.name}` },
      h("thead", {}, h("tr", {}, ...["Endpoint", "Health", "Requests/s", "", "In flight", "Latency", "Failed", "Weight", "Zone"].map((it, at) => h(at > 1 && at < 8 ? "th.num" : "th", { scope: "col" }, it)))),
      h("tbody"))));
    row = { main: h("tr", {}, ...cells), inner, cells, button, endpoints: new Map() };
    serviceRows.set(service.name, row);
  }
  const total = service.endpoints.length;
  const [dots, text] = row.cells[1].children;
  const kinds = service.endpoints.slice(0, 8).map((it) => (it[1] === "healthy" ? (it[3] ? "good" : "empty") : it[1] === "ejected" ? "warn" : "bad")).join(" ");
  if (dots.dataset.kinds !== kinds) {
    dots.dataset.kinds = kinds;
    dots.replaceChildren(...kinds.split(" ").filter(Boolean).map((it) => h(`span.dot.${it}`)));
  }
  write(text, total === 0 ? "none left" : service.well === total ? String(total) : `${service.well} of ${total}${service.panic ? ", all used" : ""}`);
  classes(text, total === 0 ? "bad" : service.well < total ? "warn" : "");
  write(row.cells[2], number(service.rate.now));
  draw(row.cells[3].firstChild, service.rate.past);
  write(row.cells[4], number(service.inflight ?? 0));
  write(row.cells[5], time(service.latency));
  write(row.cells[6], service.failed.now ? number(service.failed.now) : "–");
  classes(row.cells[6], service.failed.now ? "num bad" : "num soft");
  if (view.open.has(service.name)) endpointRows(service, row);
  return row;
}

function endpointRows(service, row) {
  const rows = service.endpoints.map((it) => {
    const [address, health, candidate, weight, zone, inflight, us, , failed, connections, reason] = it;
    let line = row.endpoints.get(address);
    if (!line) {
      line = h("tr", {}, ...["td.mono", "td", "td.num", "td.plot", "td.num", "td.num", "td.num", "td.num", "td"].map((it) => h(it)));
      line.children[0].textContent = address;
      line.children[1].append(h("span"), " ", h("span.reason"));
      line.children[3].append(plot());
      row.endpoints.set(address, line);
    }
    const rate = service.each.get(address) ?? new Rate();
    const cells = line.children;
    write(cells[1].firstChild, health + (candidate || health !== "healthy" ? "" : ", not chosen"));
    classes(cells[1].firstChild, `state ${health === "healthy" ? "good" : health === "ejected" ? "warn" : "bad"}`);
    write(cells[1].lastChild, reason ?? "");
    write(cells[2], number(rate.now));
    draw(cells[3].firstChild, rate.past);
    write(cells[4], number(inflight));
    cells[4].title = many(connections, "connection");
    write(cells[5], time(us));
    write(cells[6], failed ? whole.format(failed) : "–");
    write(cells[7], String(weight));
    write(cells[8], zone);
    return line;
  });
  const known = new Set(service.endpoints.map((it) => it[0]));
  for (const address of row.endpoints.keys()) if (!known.has(address)) { row.endpoints.delete(address); service.each.delete(address); }
  if (!rows.length) rows.push(nothing("No endpoint is left: requests are answered with 503.", 9));
  arrange(row.inner.querySelector("tbody"), rows);
}

for (const button of document.querySelectorAll("[data-sort]")) {
  button.addEventListener("click", () => {
    const by = button.dataset.sort;
    view.down = view.sort === by ? !view.down : by !== "name" && by !== "health";
    view.sort = by;
    for (const th of button.closest("tr").children) th.removeAttribute("aria-sort");
    button.parentElement.setAttribute("aria-sort", view.down ? "descending" : "ascending");
    view.page = 0;
    drawServices(true);
  });
}
$("services-filter").addEventListener("input", () => { view.page = 0; drawServices(true); });
$("services-show").addEventListener("change", () => { view.page = 0; drawServices(true); });

// ---- routes ----

let routePage = 0;
function used(it) {
  if (!it) return "";
  const canary = it.canary ? ` (canary ${it.canary.plugin} ${Math.round(it.canary.share * 1000) / 10} %${it.canary.state === "active" ? "" : ", " + it.canary.state})` : "";
  return it.plugin + canary;
}
function drawRoutes() {
  const { explicit, auto } = routes;
  const text = $("routes-filter").value.toLowerCase();
  const list = explicit.filter((it) => `${it.name} ${it.service}`.toLowerCase().includes(text)).map((it) => ({ ...it, try: it.path_prefix }));
  if (auto.count && auto.sample && !text) {
    const prefix = (auto.prefix ?? "").replace(/\/$/, "");
    list.push({ ...auto.sample, name: auto.prefix ? `${prefix}/<service>` : "by header service_name", service: many(auto.count, "service"), kind: "auto", try: auto.prefix ? auto.sample.name : null });
  }
  write($("routes-count"), `${explicit.length} written, ${whole.format(auto.count)} automatic`);
  routePage = pager($("routes-pager"), list, routePage, (by) => { routePage += by; drawRoutes(); });
  const rows = list.slice(routePage * PAGE, (routePage + 1) * PAGE).map((it) => {
    const asks = [it.host, it.methods.join(" "), ...Object.entries(it.headers).map(([name, value]) => `${name}: ${value}`)].filter(Boolean);
    const chain = [it.balancer, ...it.fallback].map(used).filter(Boolean).join(" → ");
    const attempt = it.try === null ? null : h("button.quiet", { type: "button", "aria-label": `Try ${it.name}`, click: () => tryPath(it.try, it.host, it.methods[0], it.headers) }, "Try");
    const cells = [h("td.mono", {}, it.name), h("td", { "data-label": "Asks for" }, asks.join(", ")), h("td", { "data-label": "Service" }, it.service),
      h("td", { "data-label": "Balancer" }, chain), h("td", { "data-label": "Filters" }, it.filters.map(used).join(" → ")), h("td.num", {}, attempt)];
    return h("tr", {}, ...cells);
  });
  if (!rows.length) rows.push(nothing("No route is written, and none comes with a service.", 6));
  $("routes-table").tBodies[0].replaceChildren(...rows);
}
$("routes-filter").addEventListener("input", () => { routePage = 0; drawRoutes(); });

function tryPath(path, host, method, headers) {
  $("try-path").value = path;
  $("try-host").value = host && !host.startsWith("*") ? host : "";
  $("try-method").value = method ?? "GET";
  $("try-headers").value = Object.entries(headers ?? {}).map(([name, value]) => `${name}: ${value}`).join("\n");
  $("try").requestSubmit();
}
$("try").addEventListener("submit", async (event) => {
  event.preventDefault();
  const query = new URLSearchParams({ path: $("try-path").value, method: $("try-method").value });
  if ($("try-host").value) query.set("host", $("try-host").value);
  if ($("try-client").value) query.set("client", $("try-client").value);
  for (const line of $("try-headers").value.split("\n").filter((it) => it.trim())) query.append("header", line);
  const box = $("explained");
  try {
    const response = await fetch(`/api/v1/explain?${query}`, { headers: authorization() });
    const text = await response.text();
    box.replaceChildren(...(response.ok ? explained(JSON.parse(text)) : [h("p.pick.bad", {}, text)]));
    classes(box, response.ok && JSON.parse(text).pick ? "explained" : "explained refused");
  } catch (error) {
    box.replaceChildren(h("p.pick.bad", {}, `The gateway does not answer: ${error.message}`));
  }
  box.hidden = false;
  box.focus({ preventScroll: true });
});

function explained(it) {
  const version = (used) => `${used.plugin}${used.version ? " " + used.version : ""}${used.sha256 ? " " + used.sha256.slice(0, 8) : ""}`;
  const parts = [h("button.quiet.close", { type: "button", "aria-label": "Close the explanation", click: () => { $("explained").hidden = true; $("try-path").focus(); } }, "✕")];
  if (it.pick) parts.push(h("p.pick", {}, `${it.request.method} ${it.request.path} → `, h("strong", {}, it.pick.address), h("span.soft", {}, ` as ${it.sends}`)));
  else parts.push(h("p.pick", {}, `${it.request.method} ${it.request.path} → `, h("strong.bad", {}, `${it.refused?.status ?? ""} ${it.refused?.reason ?? ""}`)));
  parts.push(h("ul", {}, ...it.summary.map((line) => h("li", {}, line))));
  if (it.endpoints?.length) {
    const heads = ["Endpoint", "", "Weight", "Zone", "In flight", "Latency", "Failures"];
    const rows = it.endpoints.slice(0, 50).map((each) => h(each.address === it.pick?.address ? "tr.picked" : "tr", {},
      h("td.mono", {}, each.address), h("td", {}, each.address === it.pick?.address ? "picked" : each.out ?? (each.candidate ? "candidate" : "")),
      h("td.num", {}, String(each.weight)), h("td", {}, each.zone), h("td.num", {}, String(each.inflight)), h("td.num", {}, time(each.latency_us)),
      h("td.num", {}, `${(each.failures_per_thousand / 10).toFixed(1)} %`)));
    parts.push(h("h3", {}, `What the balancer sees${it.endpoints.length > 50 ? " (the first 50)" : ""}`),
      h("div.scroll", {}, h("table", {}, h("thead", {}, h("tr", {}, ...heads.map((it) => h(["Endpoint", "", "Zone"].includes(it) ? "th" : "th.num", { scope: "col" }, it)))), h("tbody", {}, ...rows))));
  }
  const list = (title, lines) => { if (lines.length) parts.push(h("h3", {}, title), h("ul", {}, ...lines.map((line) => h("li", {}, line)))); };
  list("Balancers, each if the one before has no opinion", [
    ...(it.balancers ?? []).map((each) => {
      const keys = (each.keys ?? []).map((key) => `${key.key} ${key.hash ?? "absent"}`).join(", ");
      const says = each.error ? `fails: ${each.error}` : each.pick ? `picks ${each.pick}${each.certain ? "" : " (or " + each.might_pick.filter((it) => it !== each.pick).join(", ") + ")"}` : "has no opinion";
      const canary = each.canary ? `; canary ${version(each.canary)} on ${each.canary.share * 100} %: ${each.canary.pick ?? each.canary.error ?? "no opinion"}` : "";
      return `${version(each)} ${says}${keys ? `; by ${keys}` : ""}; after ${whole.format(each.sequence)} picks${canary}`;
    }),
    ...(it.native ? [`the gateway's own round robin: ${it.native}`] : []),
  ]);
  list("Filters, in their order", (it.filters ?? []).map((each) => `${version(each)}, on failure: ${each.on_failure}`));
  list("Routes that were looked at", [
    ...(it.looked_at ?? []).map((each) => `${each.chosen ? "✓ " : ""}${each.name}${each.service ? ` → ${each.service}` : ""}: ${each.why}`),
    ...(it.not_listed ? [`and ${whole.format(it.not_listed)} more that fit less`] : []),
  ]);
  return parts;
}

// ---- plugins ----

const pluginRows = new Map();
const openPlugins = new Set();
let allPlugins = false;
function drawPlugins() {
  const list = [...plugins.values()].filter((it) => allPlugins || it.told.state !== "available");
  const idle = [...plugins.values()].filter((it) => it.told.state === "available").length;
  const bad = list.filter((it) => it.told.error).length;
  write($("plugins-count"), `${list.length - (allPlugins ? idle : 0)} in use, ${idle} more bundled${bad ? `, ${bad} with an error` : ""}`);
  list.sort((a, b) => Boolean(b.told.error) - Boolean(a.told.error) || a.told.name.localeCompare(b.told.name));
  const rows = list.flatMap((it) => {
    const row = pluginRow(it);
    return openPlugins.has(it.told.name) ? [row.main, row.inner] : [row.main];
  });
  if (!rows.length) rows.push(nothing("No plugin is in use.", 9));
  arrange($("plugins-table").tBodies[0], rows);
  for (const name of pluginRows.keys()) if (!plugins.has(name)) pluginRows.delete(name);
}
function pluginRow({ told, rate }) {
  let row = pluginRows.get(told.name);
  if (!row) {
    const toggle = () => {
      const open = openPlugins.delete(told.name) ? false : Boolean(openPlugins.add(told.name));
      row.button.setAttribute("aria-expanded", open);
      drawPlugins();
    };
    const cells = ["td", "td", "td.mono", "td.num", "td.plot", "td.num", "td.num", "td.num", "td.soft"].map((it) => h(it));
    ["", "", "", "Calls/s", "", "A call", "Traps", "Stopped", "Since"].forEach((it, at) => { if (it) cells[at].dataset.label = it; });
    const button = h("button.name", { type: "button", "aria-expanded": "false", click: toggle }, told.name);
    cells[0].append(button, " ", h("span.soft"));
    cells[1].append(h("span"));
    cells[4].append(plot());
    row = { main: h("tr", {}, ...cells), inner: h("tr.inner", {}, h("td", { colspan: 9 })), cells, button };
    pluginRows.set(told.name, row);
  }
  const { cells } = row;
  write(cells[0].lastChild, told.kind ?? "");
  const state = told.state === "active" && told.error ? "active, new file refused" : told.state;
  write(cells[1].firstChild, state);
  classes(cells[1].firstChild, `state ${told.error ? "bad" : told.state === "active" ? "good" : "soft"}`);
  write(cells[2], told.sha256 ? `${told.version ? told.version + " " : ""}${told.sha256.slice(0, 8)}${told.bundled ? " bundled" : ""}` : "–");
  write(cells[3], number(rate.now));
  draw(cells[4].firstChild, rate.past);
  write(cells[5], told.mean_call_ns ? (told.mean_call_ns < 1000 ? `${told.mean_call_ns} ns` : time(told.mean_call_ns / 1000)) : "–");
  write(cells[6], told.traps ? whole.format(told.traps) : "–");
  classes(cells[6], told.traps ? "num bad" : "num soft");
  write(cells[7], told.timeouts ? whole.format(told.timeouts) : "–");
  classes(cells[7], told.timeouts ? "num bad" : "num soft");
  write(cells[8], told.loaded_at ? clock(told.loaded_at) : "");
  if (openPlugins.has(told.name)) {
    const history = events.filter((it) => it.kind === "plugin" && it.subject === told.name);
    const lines = history.slice(-20).reverse().map((it) => h("li", {}, h("time", { datetime: it.time }, clock(it.time)), it.text));
    const text = JSON.stringify([told.error, lines.length, history.at(-1)?.id, told.capabilities]);
    const cell = row.inner.firstChild;
    if (cell.dataset.text !== text) {
      cell.dataset.text = text;
      const facts = [told.size ? `${Math.round(told.size / 1024)} KiB` : null, told.compile_ms ? `compiled in ${Math.round(told.compile_ms)} ms` : null,
        told.wit ? `interface ${told.wit}` : null, told.capabilities?.length ? `may use ${told.capabilities.join(", ")}` : null].filter(Boolean).join(" · ");
      cell.replaceChildren(...[told.error ? h("p.bad", {}, told.error) : null, facts ? h("div.soft", {}, facts) : null,
        lines.length ? h("ol.history", { "aria-label": `History of ${told.name}` }, ...lines) : h("div.soft", {}, "Nothing has happened to it since the gateway started.")].filter(Boolean));
    }
  }
  return row;
}
$("plugins-all").addEventListener("click", () => {
  allPlugins = !allPlugins;
  $("plugins-all").setAttribute("aria-pressed", allPlugins);
  drawPlugins();
});

// ---- events ----

const KINDS = ["service", "health", "plugin", "config", "registry", "gateway"];
const hidden = new Set();
for (const kind of KINDS) {
  const button = h("button.quiet", { type: "button", "aria-pressed": "true", click: () => {
    button.setAttribute("aria-pressed", hidden.delete(kind) || !hidden.add(kind));
    drawEvents();
  } }, kind);
  $("kinds").append(button);
}
function eventRow(event) {
  const level = event.level === "info" ? "" : event.level === "warn" ? ".warn" : ".bad";
  const good = ["came", "new", "healthy", "returned", "live", "applied", "loaded", "swapped", "restored", "calm", "started"].includes(event.what) ? ".good" : "";
  const row = h("li", { "data-id": event.id ?? "" }, h(`span.dot${level || good}`, { "aria-hidden": "true" }), h("p", {}, event.text),
    h("span.meta", {}, h("time", { datetime: event.time ?? "", title: event.time ?? "" }, event.time ? clock(event.time) : ""), ` · ${event.kind}${event.level === "info" ? "" : ` · ${event.level === "warn" ? "warning" : "error"}`}`));
  return row;
}
function drawEvents() {
  const shown = events.filter((it) => !hidden.has(it.kind)).slice(-SHOWN).reverse();
  $("timeline").replaceChildren(...(shown.length ? shown.map(eventRow) : [h("li", {}, h("span"), h("p.soft", {}, "Nothing has happened yet."))]));
  write($("events-count"), events.length ? `${whole.format(events.length)}, the latest first` : "");
}
function takeEvent(event, fresh) {
  if (event.id) lastEvent = event.id;
  events.push(event);
  if (events.length > KEPT) events.shift();
  if (!fresh) return;
  write($("events-count"), `${whole.format(events.length)}, the latest first`);
  if (event.level !== "info") write($("announce"), event.text);
  if (hidden.has(event.kind)) return;
  const row = eventRow(event);
  row.classList.add("new");
  if (events.length === 1) $("timeline").replaceChildren();
  $("timeline").prepend(row);
  while ($("timeline").children.length > SHOWN) $("timeline").lastChild.remove();
}

// ---- the stream ----

let connected = false;
const authorization = () => (sessionStorage.token ? { authorization: `Bearer ${sessionStorage.token}` } : {});

/** Server-sent events over fetch, because an EventSource cannot show a token. */
async function follow() {
  const response = await fetch(`/api/v1/live?since=${lastEvent}`, { headers: { accept: "text/event-stream", ...authorization() }, cache: "no-store" });
  if (response.status === 401) return askForToken();
  if (!response.ok) throw new Error(await response.text());
  connected = true;
  $("lost").hidden = true;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "", first = true;
  for (;;) {
    // A gateway that says nothing for a while is gone, whatever the connection thinks.
    const silent = new Promise((_, fail) => { follow.timer = setTimeout(() => fail(new Error("nothing for ten seconds")), 10000); });
    const { done, value } = await Promise.race([reader.read(), silent]).finally(() => clearTimeout(follow.timer));
    if (done) throw new Error("the stream has ended");
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (!data) continue;
      if (block.startsWith("event: state")) {
        if (first) { drawEvents(); first = false; }
        takeState(JSON.parse(data));
      } else takeEvent(JSON.parse(data), !first);
    }
  }
}
async function run() {
  for (let pause = 500; ; pause = Math.min(pause * 2, 5000)) {
    try { await follow(); } catch (error) { console.info(error.message); }
    if (connected) {
      pause = 500;
      write($("lost-since"), new Date(previous || Date.now()).toLocaleTimeString("en-GB"));
      $("lost").hidden = false;
      connected = false;
      previous = 0;
      if (gateway) drawGateway();
    }
    await new Promise((go) => setTimeout(go, pause));
  }
}
function askForToken() {
  return new Promise((go) => {
    const dialog = $("token");
    $("token-wrong").textContent = sessionStorage.token ? "That is not the token." : "";
    $("token-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.token = $("token-input").value.trim();
      dialog.close();
    };
    dialog.onclose = () => go();
    dialog.showModal();
  });
}

// ---- keys and looks ----

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, dialog");
  if (event.key === "Escape" && event.target.type === "search" && !event.target.value) event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const target = { "/": "services-filter", t: "try-path", e: "timeline" }[event.key];
  if (target) { event.preventDefault(); $(target).focus(); }
});
const THEMES = ["auto", "light", "dark"];
function theme(next) {
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  localStorage.theme = next;
  $("theme").textContent = { auto: "◐", light: "○", dark: "●" }[next];
  $("theme").setAttribute("aria-label", `Theme: ${next === "auto" ? "as the system" : next}`);
}
theme(THEMES.includes(localStorage.theme) ? localStorage.theme : "auto");
$("theme").addEventListener("click", () => theme(THEMES[(THEMES.indexOf(localStorage.theme) + 1) % 3]));
run();
