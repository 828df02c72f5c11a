// Keys: arrows, Home and End move among the cards, Escape goes back. Enter follows a card, as it does any link.

import { byId } from "./dom.js";

export function listenToKeys(goBack) {
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.key === "Escape" && !event.target.matches("input[type=search], select")) goBack();
    const cards = [...byId("cards").querySelectorAll(".card")];
    const next = cards[target(event.key, cards, cards.indexOf(document.activeElement))];
    if (next) {
      event.preventDefault();
      next.focus();
    }
  });
}

/** The number of the card that a key leads to from card `at`, -1 standing for the heading above them. */
function target(key, cards, at) {
  if (at < 0) {
    const down = document.activeElement === byId("heading") && (key === "ArrowDown" || key === "ArrowRight");
    return down ? 0 : undefined;
  }
  const top = (card) => card.getBoundingClientRect().top;
  const columns = cards.filter((card) => Math.abs(top(card) - top(cards[0])) < 1).length;
  const places = {
    ArrowLeft: at - 1,
    ArrowRight: at + 1,
    ArrowUp: at - columns,
    ArrowDown: at + columns,
    Home: 0,
    End: cards.length - 1,
  };
  return places[key];
}
