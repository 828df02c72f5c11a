// What the page shows, kept in its address: a link to a result, and Back, are the address alone.
// An uploaded image is no part of an address: the history entry names it, and it lives as long as the page.

export const PAGE = 60;
export const K = 20;
const WORDS = ["since", "until", "query_camid", "find"];

export function read() {
  const given = new URLSearchParams(location.search);
  const whole = (name, fallback) => Math.max(1, parseInt(given.get(name), 10) || fallback);
  const state = {
    id: /^\d+$/.test(given.get("id") ?? "") ? given.get("id") : "",
    upload: history.state?.upload ?? "",
    views: given.getAll("views"),
    camids: given.getAll("camids"),
    other_cameras: given.get("other_cameras") === "true",
    k: whole("k", K),
    page: whole("page", 1),
  };
  for (const name of WORDS) state[name] = given.get(name) ?? "";
  return state;
}

export const searching = (state) => state.id !== "" || state.upload !== "";

/** The address of a state, relative to the page. */
export function address(state) {
  const asked = filters(state);
  if (state.other_cameras) asked.set("other_cameras", "true");
  if (state.query_camid) asked.set("query_camid", state.query_camid);
  if (state.k !== K) asked.set("k", state.k);
  if (!searching(state)) {
    if (state.find) asked.set("find", state.find);
    if (state.page > 1) asked.set("page", state.page);
  }
  const text = (state.id ? `id=${state.id}&${asked}` : `${asked}`).replace(/&$/, "");
  return text ? `?${text}` : "./";
}

/** Parameters of the API that all of its searches share. */
export function filters(state) {
  const asked = new URLSearchParams();
  for (const view of state.views) asked.append("views", view);
  for (const camid of state.camids) asked.append("camids", camid);
  for (const name of ["since", "until"]) if (state[name]) asked.set(name, state[name]);
  return asked;
}
