// Rows of the gallery as cards, each a link that searches by its row.

import { imageAddress } from "./api.js";
import { byId, icon, make } from "./dom.js";

const PERSON = "M12 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7Zm-6 9v-2a6 6 0 0 1 12 0v2";
const TICK = "m5 12.5 4.5 4.5L19 7.5";
const CROSS = "m7 7 10 10M17 7 7 17";
const SIZE = 384; // pixels of a crop's longer side: enough for twice the density of what a card shows

export const blank = () => make("span", { className: "blank" }, icon(PERSON));

/** An image that gives way to a figure where it cannot be shown. */
export function picture(source, alt) {
  const image = make("img", { alt, draggable: false, decoding: "async", loading: "lazy", src: source });
  image.addEventListener("error", () => image.replaceWith(blank()));
  return image;
}

/** The crop of a row, or a figure where the gallery has no images. */
export function crop(row, gallery) {
  const where = [row.view, row.camid === null ? "" : `camera ${row.camid}`].filter(Boolean).join(" ");
  const alt = `Image ${row.id}${where ? `, ${where}` : ""}`;
  return gallery.images ? picture(imageAddress(row.id, SIZE), alt) : blank();
}

export function dot(view, gallery) {
  const place = gallery.views.findIndex((known) => known.view === view);
  return make("i", {
    className: "dot",
    data: { hue: place < 0 ? "" : String(place % 5) },
    aria: { hidden: "true" },
  });
}

export const camera = (row) => (row.camid === null ? "" : `cam\u00a0${row.camid}`);

/** The view of a row, with the dot of its colour. */
export const view = (row, gallery) =>
  row.view ? make("span", { className: "view" }, dot(row.view, gallery), row.view) : "";

/** One card. `query` is the row searched by, null for an upload, undefined while browsing. */
function card(row, gallery, link, query) {
  const frame = make("span", { className: "frame" }, crop(row, gallery));
  const facts = make("span", { className: "facts" });
  if (row.rank !== undefined) {
    frame.append(
      make("span", { className: "rank" }, make("span", { className: "unseen" }, "rank "), `${row.rank}`),
    );
    const bar = make("span", { className: "similarity", aria: { hidden: "true" } }, make("i"));
    bar.firstChild.style.width = `${100 * Math.min(1, Math.max(0, 1 - row.distance))}%`;
    const distance = make("span", { className: "distance" }, row.distance.toFixed(4));
    distance.prepend(make("span", { className: "unseen" }, "distance "));
    facts.append(bar, distance);
  }
  const identity = row.pid === null ? `#${row.id}` : `ID\u00a0${row.pid}`;
  facts.append(
    view(row, gallery),
    make("span", { className: "muted" }, [camera(row), identity].filter(Boolean).join(" · ")),
  );
  const element = make(
    "a",
    { className: "card", href: link, title: row.path, data: { id: String(row.id) } },
    frame,
    facts,
  );
  if (query && query.pid !== null && row.pid !== null) {
    const same = query.pid === row.pid;
    element.classList.add(same ? "same" : "other");
    const said = make("span", { className: "unseen" }, same ? "same identity" : "another identity");
    frame.append(make("span", { className: "mark" }, icon(same ? TICK : CROSS), said));
  }
  return make("li", {}, element);
}

/** Put rows in place of the cards that are there. */
export function showCards(rows, gallery, linkTo, query) {
  byId("cards").replaceChildren(...rows.map((row) => card(row, gallery, linkTo(row), query)));
}
