// The form of filters: built from what the gallery has, filled from the state, read back on every change.

import { dot } from "./cards.js";
import { byId, make, number } from "./dom.js";
import { searching } from "./state.js";

const MAX_K = 500;

/** Build the form; `change` is called with what was changed of the state. */
export function buildFilters(gallery, change) {
  const form = byId("filters");
  if (gallery.views.length) {
    const pills = gallery.views.map(({ view, rows }) =>
      pill("views", view, view, dot(view, gallery), `${number(rows)} images`),
    );
    form.append(group("View", pills));
  }
  if (gallery.cameras.length) {
    const pills = gallery.cameras.map(({ camid, view, rows }) =>
      pill(
        "camids",
        String(camid),
        `${camid}`,
        view ? dot(view, gallery) : "",
        `${view ?? ""} camera ${camid}, ${number(rows)} images`,
      ),
    );
    form.append(group("Camera", pills));
  }
  if (gallery.times) {
    const inputs = [
      ["since", "From"],
      ["until", "Until"],
    ].map(([name, label]) =>
      make(
        "label",
        { className: "field time" },
        label,
        make("input", { type: "datetime-local", name, step: "1" }),
      ),
    );
    form.append(group("Time (UTC)", inputs));
  }
  const other = make("input", { type: "checkbox", name: "other_cameras" });
  const cameras = gallery.cameras.map(({ camid }) =>
    make("option", { value: String(camid) }, `camera ${camid}`),
  );
  const own = make("select", { name: "query_camid" }, make("option", { value: "" }, "choose"), ...cameras);
  form.append(
    make(
      "div",
      { id: "of-a-search" },
      make("label", { className: "check" }, other, "Not the query's own camera"),
      make("label", { className: "field", id: "own-camera" }, "The query's camera", own),
      make(
        "label",
        { className: "field" },
        "Neighbours",
        make("input", { type: "number", name: "k", min: "1", max: `${MAX_K}`, required: true }),
      ),
    ),
    make("button", { type: "button", id: "clear" }, "Clear filters"),
  );
  form.addEventListener("change", () => form.reportValidity() && change(readFilters(form)));
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("clear").addEventListener("click", () =>
    change({ views: [], camids: [], since: "", until: "", other_cameras: false, query_camid: "" }),
  );
}

export function fillFilters(state, query) {
  const form = byId("filters");
  for (const input of form.elements) {
    if (input.name === "views" || input.name === "camids")
      input.checked = state[input.name].includes(input.value);
    else if (input.name === "other_cameras") input.checked = state.other_cameras;
    else if (input.name) input.value = state[input.name];
  }
  byId("of-a-search").hidden = !searching(state);
  byId("own-camera").hidden = state.upload === "" || !state.other_cameras;
  const other = form.elements.other_cameras;
  other.disabled = Boolean(query) && query.camid === null;
  const active =
    state.views.length +
    state.camids.length +
    Boolean(state.since) +
    Boolean(state.until) +
    (searching(state) && state.other_cameras);
  byId("active").hidden = byId("clear").hidden = active === 0;
  byId("active").textContent = active;
}

function readFilters(form) {
  const given = new FormData(form);
  const text = (name) => given.get(name) ?? "";
  return {
    views: given.getAll("views"),
    camids: given.getAll("camids"),
    since: text("since"),
    until: text("until"),
    other_cameras: given.has("other_cameras"),
    query_camid: text("query_camid"),
    k: Number(text("k")),
  };
}

function pill(name, value, text, mark, title) {
  return make(
    "label",
    { className: "pill", title },
    make("input", { type: "checkbox", name, value }),
    mark,
    text,
  );
}

function group(title, children) {
  return make("fieldset", {}, make("legend", {}, title), make("div", { className: "choices" }, ...children));
}
