// Requests to the API; every failure is an Error whose message can be shown.

import { filters, PAGE } from "./state.js";

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(`api/${path}`, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Does vif serve still run?");
  }
  const content = await answer.json().catch(() => ({}));
  if (answer.ok) return content;
  const message = content.error ?? `The server answers ${answer.status}.`;
  throw new Error(message.charAt(0).toUpperCase() + message.slice(1));
}

export const gallery = () => ask("gallery");

export function rows(state, signal) {
  const asked = filters(state);
  if (state.find) asked.set("find", state.find);
  asked.set("offset", (state.page - 1) * PAGE);
  asked.set("limit", PAGE);
  return ask(`rows?${asked}`, { signal });
}

export const similar = (state, signal) => ask(`similar/${state.id}?${neighbours(state)}`, { signal });

export function search(state, file, signal) {
  const asked = neighbours(state);
  if (state.other_cameras && state.query_camid) asked.set("query_camid", state.query_camid);
  const body = new FormData();
  body.append("image", file);
  return ask(`search?${asked}`, { method: "POST", body, signal });
}

function neighbours(state) {
  const asked = filters(state);
  asked.set("k", state.k);
  if (state.other_cameras) asked.set("other_cameras", "true");
  return asked;
}

export const imageAddress = (id, size) => `api/image/${id}?size=${size}`;
