// The query: the panel that shows it, and the ways in which an image comes in.

import { crop, picture, view } from "./cards.js";
import { byId, make } from "./dom.js";

const uploads = new Map(); // by number, as history entries name them: file, and the address of its preview

export const uploaded = (number) => uploads.get(number);

/** Show the query: an uploaded file, a row, or none. */
export function showQuery(upload, row, gallery) {
  const panel = byId("query");
  panel.hidden = !upload && !row;
  if (upload) {
    byId("query-crop").replaceChildren(picture(upload.preview, "The image to search by"));
    facts([["Query", upload.file.name || "pasted image"]]);
  } else if (row) {
    byId("query-crop").replaceChildren(crop(row, gallery));
    const known = new Set(["id", "path", "pid", "camid", "view", "time", "split"]);
    const own = Object.entries(row).filter(([name, value]) => !known.has(name) && value !== null);
    facts([
      ["Query", `#${row.id}`],
      ["Seen by", seenBy(row, gallery)],
      ["Identity", row.pid ?? ""],
      ["Time", row.time === null ? "" : moment(row.time)],
      ...own,
      ["Path", row.path],
    ]);
  }
}

/** Seconds since 1970 in UTC, or as a number where no calendar reaches. */
function moment(seconds) {
  const date = new Date(1000 * seconds);
  if (isNaN(date)) return `${seconds} s`;
  return date.toISOString().replace("T", " ").replace(/(\.000)?Z/, " UTC");
}

function seenBy(row, gallery) {
  if (row.camid === null) return view(row, gallery);
  return make("span", {}, view(row, gallery), `camera ${row.camid}`);
}

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== "");
  byId("query-facts").replaceChildren(
    ...shown.map(([name, value]) =>
      make(
        "div",
        {},
        make("dt", {}, name),
        make("dd", {}, typeof value === "object" ? value : String(value)),
      ),
    ),
  );
}

/** Take images from the picker, the clipboard and drops; `accept` gets an upload's number, `refuse` a text. */
export function takeImages(gallery, accept, refuse) {
  const take = (file) => {
    if (!file) return refuse("That is no image file. Drop or paste the image itself.");
    if (file.size > gallery.max_upload_bytes) {
      const most = Number((gallery.max_upload_bytes / 2 ** 20).toFixed(2));
      return refuse(`The image is larger than ${most} MiB, the most that vif serve was started for.`);
    }
    const number = String(uploads.size + 1);
    uploads.set(number, { file, preview: URL.createObjectURL(file) });
    return accept(number);
  };
  const input = byId("file");
  input.addEventListener("change", () => {
    const [file] = input.files;
    input.value = ""; // so that the same file can be chosen again
    if (file) take(file);
  });
  document.addEventListener("paste", (event) => {
    if (event.target.matches("input:not([type=file])")) return;
    take([...event.clipboardData.files].find((file) => file.type.startsWith("image/")));
  });
  let depth = 0; // of the elements that a drag has entered
  const dragging = (change) => {
    depth = Math.max(0, change === 0 ? 0 : depth + change);
    document.body.classList.toggle("dragging", depth > 0);
  };
  document.addEventListener("dragenter", () => dragging(1));
  document.addEventListener("dragleave", () => dragging(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    dragging(0);
    take(event.dataTransfer.files[0]);
  });
  if (!gallery.uploads) {
    byId("drop").classList.add("off");
    byId("drop-text").replaceChildren(
      make("strong", {}, "Pick a person from the gallery"),
      make("br"),
      "to search by your own images, start vif serve with --config-file and --weights, or --onnx",
    );
    input.disabled = true;
  }
}
