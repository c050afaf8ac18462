// Fills the page from /api/clients and /api/status. What comes from a request is only ever text: nothing here reads HTML.
"use strict";

const REFRESH_EVERY_MS = 30_000;
const ROWS_SHOWN_MAX = 500;

const FORMATS = {
  schema1: "schema 1", schema2: "schema 2", oci: "OCI", list: "manifest list", index: "OCI index", artifact: "artifact",
};
const NEEDS = {
  schema1: { tag: "schema 1", kind: "old", rank: 0 },
  schema2: { tag: "schema 2", kind: "aging", rank: 1 },
  none: { tag: "none of the three", kind: "none", rank: 2 },
  oci: { tag: "nothing old", kind: "good", rank: 3 },
};

const sorting = { key: "last_seen", descending: true };
let clients = null;

const at = (id) => document.getElementById(id);

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function plural(count, one, many) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

function ago(then, now) {
  const seconds = Math.max(0, Math.round((Date.parse(now) - Date.parse(then)) / 1000));
  const steps = [[60, "second"], [60, "minute"], [24, "hour"], [Infinity, "day"]];
  let count = seconds;
  for (const [size, unit] of steps) {
    if (count < size) return count === 0 ? "just now" : `${plural(count, unit, unit + "s")} ago`;
    count = Math.floor(count / size);
  }
}

function timeElement(then, now) {
  const made = element("time", ago(then, now));
  made.dateTime = then;
  made.title = then.replace("T", " ").replace("Z", " UTC");
  return made;
}

function bytes(count) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${count.toLocaleString("en", { maximumFractionDigits: unit === 0 ? 0 : 1 })} ${units[unit]}`;
}

const nameOf = (row) => [row.client || "no User-Agent", row.version].filter(Boolean).join(" ");
const format = (word) => FORMATS[word] ?? word;

function need(word) {
  const known = NEEDS[word] ?? { tag: word, kind: "none" };
  return element("span", known.tag, `tag ${known.kind}`);
}

function reads(formats) {
  if (formats.length === Object.keys(FORMATS).length) return "reads everything";
  return formats.length === 1 && formats[0] in NEEDS ? "" : `reads ${formats.map(format).join(", ") || "nothing"}`;
}

// A cell of a table; on a phone its label stands before it.
function cell(row, label, content, soft, kind) {
  const made = element(label === "Client" ? "th" : "td", undefined, kind);
  if (label === "Client") made.scope = "row";
  made.dataset.label = label;
  const inner = element("div", undefined, "cell");
  inner.append(content);
  if (soft) inner.append(element("span", soft, "soft"));
  made.append(inner);
  row.append(made);
}

function card(kind, title, ...lines) {
  const made = element("li", undefined, kind);
  made.append(element("h3", title));
  lines.filter(Boolean).forEach((line, place) => made.append(element("p", line, place === 0 ? "" : "soft")));
  return made;
}

function names(rows) {
  const last = new Map();
  for (const row of rows) if (!last.has(nameOf(row)) || last.get(nameOf(row)) < row.last_seen) last.set(nameOf(row), row.last_seen);
  const sorted = [...last].sort((one, other) => (one[1] < other[1] ? 1 : -1)).map(([name]) => name);
  const more = sorted.length - 6;
  const whole = sorted.slice(0, 6).map((name) => name.replaceAll(" ", "\u00a0"));
  return whole.join(", ") + (more > 0 ? ` and ${more} more` : "");
}

function showAnswer() {
  const card_of = (word, kind, title, nobody) => {
    const rows = clients.clients.filter((row) => row.needs === word);
    const others = clients.other_clients.filter((row) => row.needs === word);
    const all = [...rows, ...others];
    if (all.length === 0) return card("good", title, nobody);
    const last = all.map((row) => row.last_seen).sort().at(-1);
    const requests = all.reduce((sum, row) => sum + row.requests, 0);
    const repositories = new Set(rows.map((row) => `${row.upstream}/${row.repository}`)).size;
    const refused = rows.filter((row) => row.served === null).length;
    return card(kind, title, names(rows) || "Clients that have no row any more",
      `${plural(requests, "request", "requests")} for ${plural(repositories, "repository", "repositories")}, last ${ago(last, clients.now)}`,
      refused > 0 && `Refused in ${plural(refused, "row", "rows")} below`);
  };
  at("answer").replaceChildren(
    card_of("schema1", "old", "Schema 1, and nothing newer", "Nobody, since this process began."),
    card_of("schema2", "aging", "Schema 2, and nothing newer", "Nobody, since this process began."),
    card_of("oci", "good", "Nothing old: these read OCI", "Nobody yet."),
  );
}

function wanted(row) {
  const find = at("find").value.trim().toLowerCase();
  const text = `${nameOf(row)} ${row.class} ${row.upstream}/${row.repository}`.toLowerCase();
  return (!at("upstream").value || row.upstream === at("upstream").value)
    && (!at("need").value || row.needs === at("need").value)
    && find.split(/\s+/).every((word) => text.includes(word));
}

function sortValue(row) {
  switch (sorting.key) {
    case "client": return nameOf(row).toLowerCase();
    case "needs": return NEEDS[row.needs]?.rank ?? 9;
    case "repository": return `${row.upstream}/${row.repository}`;
    default: return row[sorting.key] ?? "";
  }
}

function showClients() {
  const rows = clients.clients.filter(wanted).map((row) => [sortValue(row), row]);
  const way = sorting.descending ? -1 : 1;
  rows.sort(([one], [other]) => (one < other ? -way : one > other ? way : 0));
  const several = new Set(clients.clients.map((row) => row.upstream)).size > 1;
  const made = rows.slice(0, ROWS_SHOWN_MAX).map(([, row]) => {
    const line = element("tr");
    cell(line, "Client", nameOf(row), row.class === "unknown" ? "not a known client" : "");
    cell(line, "Needs", need(row.needs), reads(row.reads));
    cell(line, "Repository", row.repository, several ? row.upstream : "");
    cell(line, "Stored", format(row.stored));
    cell(line, "Got", row.served === null ? element("span", "refused", "tag old") : format(row.served), row.why);
    cell(line, "Requests", row.requests.toLocaleString("en"), "", "number");
    cell(line, "Last seen", timeElement(row.last_seen, clients.now), row.requests > 1 && `first ${ago(row.first_seen, clients.now)}`);
    return line;
  });
  document.querySelector("#clients tbody").replaceChildren(...made);
  const total = clients.clients.length;
  at("clients-count").textContent = `${plural(rows.length, "row", "rows")}${rows.length < total ? ` of ${total.toLocaleString("en")}` : ""}${rows.length > made.length ? `, the first ${made.length} shown` : ""}: client, repository, and what it asked for and got`;
  document.querySelector("#clients").parentElement.hidden = made.length === 0;
  const empty = at("clients-empty");
  empty.hidden = made.length > 0;
  empty.textContent = total === 0 ? "Nobody has pulled by this gateway yet. Point a client at it and pull an image." : "No row is as the filters want it.";
  const others = clients.other_clients.map((row) => `${plural(row.rows, "row", "rows")} (needs ${NEEDS[row.needs]?.tag ?? row.needs}, ${plural(row.requests, "request", "requests")}, last ${ago(row.last_seen, clients.now)})`);
  at("clients-others").hidden = others.length === 0;
  at("clients-others").textContent = `Made room for others: ${others.join("; ")}.`;
}

function showUpstreamChoices() {
  const select = at("upstream");
  const chosen = select.value;
  const known = [...new Set(clients.clients.map((row) => row.upstream))].sort();
  const options = known.map((name) => { const option = element("option", name); option.value = name; return option; });
  const all = element("option", "all");
  all.value = "";
  select.replaceChildren(all, ...options);
  select.value = known.includes(chosen) ? chosen : "";
}

function showCells() {
  const words = Object.keys(FORMATS);
  const head = element("tr");
  head.append(element("td", ""));
  words.forEach((word) => { const made = element("th", format(word), "number"); made.scope = "col"; head.append(made); });
  document.querySelector("#cells thead").replaceChildren(head);
  const rows = words.map((stored) => {
    const line = element("tr");
    const name = element("th", format(stored));
    name.scope = "row";
    line.append(name);
    for (const served of words) {
      const found = clients.translations.find((one) => one.stored === stored && one.served === served);
      const kind = !found ? "zero" : stored === served ? "same" : "translated";
      const made = element("td", found ? found.requests.toLocaleString("en") : "·", `number ${kind}`);
      if (found) made.title = `${stored === served ? "as stored" : "translated"}, last ${ago(found.last_seen, clients.now)}`;
      line.append(made);
    }
    return line;
  });
  document.querySelector("#cells tbody").replaceChildren(...rows);
}

function showRefusals() {
  const rows = clients.refusals.map((row) => {
    const line = element("tr");
    cell(line, "Status", `${row.status}`, row.code);
    cell(line, "Reason", row.reason, `${row.path}${row.class === "unknown" ? "" : ` · ${row.class}`}`);
    cell(line, "Upstream", row.upstream || "none");
    cell(line, "Times", row.requests.toLocaleString("en"), "", "number");
    cell(line, "Last seen", timeElement(row.last_seen, clients.now));
    return line;
  });
  document.querySelector("#refusals tbody").replaceChildren(...rows);
  document.querySelector("#refusals").parentElement.hidden = rows.length === 0;
  at("refusals-empty").hidden = rows.length > 0;
  const others = clients.other_refusals;
  at("refusals-others").hidden = others === null;
  if (others) at("refusals-others").textContent = `Made room for others: ${plural(others.rows, "row", "rows")}, ${plural(others.requests, "request", "requests")}.`;
}

function showWork(work, now) {
  const rows = work.map((one) => {
    const line = element("tr");
    cell(line, "What", one.kind);
    cell(line, "Image", one.repository, `${one.upstream} · ${one.source}`);
    cell(line, "Layers", `${one.layers_done} of ${one.layers}`, "", "number");
    cell(line, "Bytes", one.bytes === null ? bytes(one.bytes_done) : `${bytes(one.bytes_done)} of ${bytes(one.bytes)}`, "", "number");
    cell(line, "Since", timeElement(one.since, now));
    return line;
  });
  document.querySelector("#work tbody").replaceChildren(...rows);
  at("work-section").hidden = rows.length === 0;
}

function showStatus(status) {
  showWork(status.work, status.now);
  at("version").textContent = status.version;
  at("since").textContent = status.since.replace("T", " ").replace("Z", " UTC");
  at("upstreams").replaceChildren(...status.upstreams.map((one) => {
    const failure = one.last_failure;
    const fails = one.breaker === "open" || one.breaker === "half-open";
    const ailing = failure && (!one.last_answer || failure.time > one.last_answer);
    const state = fails ? "Left alone for a while: it does not answer" : ailing ? "Its last answer was a failure"
      : one.last_answer ? `Answers; last ${ago(one.last_answer, status.now)}` : "Not asked yet";
    const limit = one.rate_limit;
    return card(fails ? "old" : ailing ? "aging" : "good", one.name, state, one.url, `Shown: ${one.credentials}`,
      limit && `Rate limit: ${limit.remaining ?? "?"} of ${limit.limit ?? "?"} left, as it said ${plural(limit.age_seconds, "second", "seconds")} ago`,
      failure && `Last failure ${ago(failure.time, status.now)}: ${failure.reason}`);
  }));
  const store = status.store;
  const well = store.reads && store.writes;
  const full = (kept) => `${bytes(kept.bytes)} of ${bytes(kept.bytes_max)}`;
  at("kept").replaceChildren(
    card(well ? "good" : "old", "Store", well ? "Answers" : store.reads ? "Cannot be written" : "Cannot be read",
      store.location, store.durable ? "Digests that were handed out outlive a restart" : "In memory: a restart forgets the digests that were handed out"),
    card("good", "Memory", full(status.memory), plural(status.memory.entries, "document", "documents")),
    ...(status.blob_cache ? [card("good", "Blob cache", full(status.blob_cache), plural(status.blob_cache.entries, "blob", "blobs"))] : []),
  );
}

async function read(path) {
  const answer = await fetch(location.origin + path, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(`${path} was answered with ${answer.status}`);
  return answer.json();
}

async function refresh() {
  const fresh = at("fresh");
  try {
    const [seen, status] = await Promise.all([read("/api/clients"), read("/api/status")]);
    clients = seen;
    showAnswer();
    showUpstreamChoices();
    showClients();
    showCells();
    showRefusals();
    showStatus(status);
    fresh.className = "";
    fresh.textContent = `As of ${seen.now.slice(11, 19)} UTC, every ${REFRESH_EVERY_MS / 1000} seconds`;
    document.body.dataset.state = "shown";
  } catch (error) {
    fresh.className = "failed";
    fresh.textContent = `Not up to date: ${error.message}`;
    document.body.dataset.state = "failed";
  }
}

document.querySelectorAll("#clients th[data-key]").forEach((head) => head.querySelector("button").addEventListener("click", () => {
  const key = head.dataset.key;
  sorting.descending = sorting.key === key ? !sorting.descending : key === "requests" || key === "last_seen";
  sorting.key = key;
  document.querySelectorAll("#clients th").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", sorting.descending ? "descending" : "ascending");
  if (clients) showClients();
}));
at("filters").addEventListener("submit", (event) => event.preventDefault());
["find", "upstream", "need"].forEach((id) => at(id).addEventListener("input", () => { if (clients) showClients(); }));
setInterval(() => { if (!document.hidden) refresh(); }, REFRESH_EVERY_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();
