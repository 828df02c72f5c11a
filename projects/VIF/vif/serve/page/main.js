// The page: reads the state from the address, asks the API, shows the answer.

import * as api from "./api.js";
import { showCards } from "./cards.js";
import { byId, make, number, plural } from "./dom.js";
import { buildFilters, fillFilters } from "./filters.js";
import { listenToKeys } from "./keys.js";
import { showQuery, takeImages, uploaded } from "./query.js";
import { address, PAGE, read, searching } from "./state.js";

const NONE = { id: "", upload: "" };
let gallery;
let shown = ""; // id of the query
let running = new AbortController();

/** Go to a changed state, as a new entry of the history. */
function go(change, focus) {
  const state = { ...read(), page: 1, ...change };
  enter(address(state), state.upload, focus);
}

function enter(place, upload, focus) {
  history.pushState({ upload, depth: (history.state?.depth ?? 0) + 1 }, "", place);
  show(focus);
}

function goBack() {
  if (history.state?.depth) history.back();
  else if (searching(read())) go(NONE, "heading");
}

/** Show the state of the address; `focus` names what gets the focus then: "heading", "card:ID" or nothing. */
async function show(focus = "") {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const lost = read().upload !== "" && !uploaded(read().upload); // the page was loaded again since
  if (lost) history.replaceState({ ...history.state, upload: "" }, "");
  const state = read();
  const upload = uploaded(state.upload);
  shown = state.id;
  busy(true, searching(state));
  fail("");
  fillFilters(state);
  byId("find").value = state.find;
  byId("find-form").hidden = searching(state);
  byId("back").hidden = !searching(state);
  try {
    if (upload) showQuery(upload, null, gallery);
    if (searching(state)) await showNeighbours(state, upload, signal);
    else await showRows(state, signal);
    if (lost) fail("The image you dropped was not kept. Drop it again.");
  } catch (error) {
    if (error.name === "AbortError") return;
    byId("cards").replaceChildren();
    byId("pages").hidden = true;
    heading(searching(state) ? "No result" : "Gallery", "");
    if (!upload) showQuery();
    fail(error.message);
  }
  busy(false);
  const [kind, id] = focus.split(":");
  const card = id && document.querySelector(`.card[data-id="${CSS.escape(id)}"]`);
  if (card) card.focus();
  else if (kind) byId("heading").focus({ preventScroll: true });
}

async function showNeighbours(state, upload, signal) {
  if (upload && state.other_cameras && !state.query_camid) {
    throw new Error("Choose the camera of your image among the filters, so that it can be left out.");
  }
  const found = upload ? await api.search(state, upload.file, signal) : await api.similar(state, signal);
  const { query, neighbours } = found;
  showQuery(upload, query, gallery);
  fillFilters(state, query);
  const linkTo = (row) => address({ ...state, ...NONE, id: String(row.id) });
  showCards(neighbours, gallery, linkTo, query);
  byId("pages").hidden = true;
  const labelled = query && query.pid !== null;
  const same = labelled ? neighbours.filter((row) => row.pid === query.pid).length : 0;
  const told = labelled ? `${number(same)} of the same identity` : "by cosine distance";
  heading(
    neighbours.length ? `The ${number(neighbours.length)} nearest` : "Nothing passes the filters",
    neighbours.length ? told : "Choose fewer.",
  );
  document.title = `${upload ? upload.file.name || "pasted image" : `#${state.id}`} · vif`;
}

async function showRows(state, signal) {
  const { total, rows } = await api.rows(state, signal);
  showQuery();
  showCards(rows, gallery, (row) => address({ ...state, id: String(row.id) }));
  const last = Math.max(1, Math.ceil(total / PAGE));
  const passing = total === gallery.rows ? "" : ` of ${number(gallery.rows)}`;
  heading(
    "Gallery",
    total
      ? `${plural(total, "image", "images")}${passing}. Choose one to search by it.`
      : "No image passes. Choose fewer filters, or find a shorter text.",
  );
  byId("pages").hidden = last === 1 && state.page === 1;
  const link = (text, page) =>
    page < 1 || page > last
      ? make("span", { aria: { hidden: "true" } }, text)
      : make("a", { href: address({ ...state, page }), data: { page: String(page) } }, text);
  byId("pages").replaceChildren(
    link("Previous", state.page - 1),
    make("span", {}, `Page ${number(state.page)} of ${number(last)}`),
    link("Next", state.page + 1),
  );
  document.title = "Find a person · vif";
}

function heading(title, told) {
  byId("heading").textContent = title;
  byId("count").textContent = told;
  byId("status").textContent = [title, told].filter(Boolean).join(": ");
}

function busy(is, search) {
  byId("main").setAttribute("aria-busy", String(is));
  if (is) byId("status").textContent = search ? "Searching" : "Loading";
}

function fail(message) {
  byId("alert").hidden = message === "";
  byId("alert").textContent = message;
}

/** Links of the page change its state in place; with a key held they open a tab, as links do. */
function followLinks() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.card, #pages a, #home");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    window.scrollTo(0, 0);
    enter(link.href, "", "heading");
  });
  byId("find-form").addEventListener("submit", (event) => {
    event.preventDefault();
    go({ find: byId("find").value.trim() });
  });
  byId("find").addEventListener("search", () => byId("find").value === "" && go({ find: "" }));
  byId("back").addEventListener("click", goBack);
  window.addEventListener("popstate", () => show(`card:${shown}`));
}

async function start() {
  try {
    gallery = await api.gallery();
  } catch (error) {
    fail(error.message);
    return;
  }
  byId("summary").textContent = [
    plural(gallery.rows, "image", "images"),
    plural(gallery.cameras.length, "camera", "cameras"),
    `${gallery.index} index`,
    `weights ${gallery.fingerprint.slice(0, 8)}`,
  ].join(" · ");
  byId("filters-box").open = matchMedia("(min-width: 60rem)").matches;
  buildFilters(gallery, (change) => go(change));
  takeImages(gallery, (upload) => go({ id: "", upload }, "heading"), fail);
  followLinks();
  listenToKeys(goBack);
  await show();
}

start();
