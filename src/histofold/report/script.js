"use strict";
// Filters, layers and the enlarged view. Without this script the page still shows everything.
document.documentElement.classList.add("js");

const PAGE_SIZE = 60;
const LAYERS = ["truth", "pred", "diff"];
const viewer = document.getElementById("viewer");
const stage = viewer.querySelector(".stage");
let opened = null; // the card that is enlarged

/** Show or hide outlines inside `box` as its checkboxes say. */
function applyLayers(box) {
  const on = Object.fromEntries(LAYERS.map((name) => [name, box.querySelector(`input[name=${name}]`).checked]));
  box.classList.toggle("hide-truth", !on.truth);
  box.classList.toggle("hide-pred", !on.pred);
  box.classList.toggle("show-diff", on.diff);
}

/** Show the cards that pass the filter, a page of them at first; `gallery.matches` keeps all that pass. */
function filter(gallery, size = PAGE_SIZE) {
  const value = (name) => gallery.querySelector(`[name=${name}]`)?.value ?? "";
  const [stratum, fold, find] = [value("stratum"), value("fold"), value("find").trim().toLowerCase()];
  const cards = [...gallery.querySelectorAll(".card")];
  gallery.matches = cards.filter(
    (card) =>
      (!stratum || card.dataset.stratum === stratum) &&
      (!fold || card.dataset.fold === fold) &&
      (!find || card.dataset.search.includes(find)),
  );
  const shown = new Set(gallery.matches.slice(0, size));
  for (const card of cards) card.hidden = !shown.has(card);
  const scores = gallery.matches.map((card) => Number(card.dataset.score)).filter((score) => !Number.isNaN(score));
  const mean = scores.length ? ` · mean ${(scores.reduce((a, b) => a + b, 0) / scores.length).toFixed(3)}` : "";
  gallery.querySelector(".count").textContent = `${gallery.matches.length} of ${cards.length}${mean}`;
  gallery.querySelector(".none").hidden = gallery.matches.length > 0;
  const left = gallery.matches.length - shown.size;
  const more = gallery.querySelector(".more");
  more.hidden = left <= 0;
  more.textContent = `Show the other ${left}`;
}

function order(gallery) {
  const list = gallery.querySelector(".cards");
  const sign = gallery.querySelector("[name=order]")?.value === "best" ? -1 : 1;
  const cards = [...list.children].sort((a, b) => sign * (Number(a.dataset.score) - Number(b.dataset.score)));
  list.append(...cards);
  filter(gallery);
}

function show(card) {
  opened = card;
  const [image, outlines] = card.querySelectorAll(".frame img, .frame svg");
  const copy = outlines.cloneNode(true);
  copy.setAttribute("preserveAspectRatio", "xMidYMid meet");
  const picture = image.cloneNode();
  picture.alt = card.dataset.id;
  stage.classList.remove("zoomed");
  stage.replaceChildren(picture, copy);
  const score = card.dataset.score === undefined ? "" : Number(card.dataset.score).toFixed(4);
  viewer.querySelector(".bar .score").textContent = score;
  viewer.querySelector(".bar .id").textContent = card.dataset.id;
  viewer.querySelector(".bar .sub").textContent = [...card.querySelectorAll(".sub span")].map((part) => part.textContent).join(" · ");
  viewer.querySelector(".facts").innerHTML = card.querySelector(".facts").innerHTML;
  if (!viewer.open) {
    viewer.showModal();
    stage.focus();
  }
}

function step(by) {
  const cards = opened.closest(".gallery").matches;
  show(cards[(cards.indexOf(opened) + by + cards.length) % cards.length]);
}

function toggle(name) {
  const box = viewer.querySelector(`input[name=${name}]`);
  box.checked = !box.checked;
  applyLayers(viewer);
}

for (const gallery of document.querySelectorAll(".gallery")) {
  gallery.addEventListener("input", (event) => {
    if (LAYERS.includes(event.target.name)) applyLayers(gallery);
    else if (event.target.name === "order") order(gallery);
    else filter(gallery);
  });
  gallery.addEventListener("click", (event) => {
    if (event.target.closest(".more")) filter(gallery, Infinity);
    const card = event.target.closest(".frame")?.closest(".card");
    if (!card) return;
    for (const name of LAYERS) {
      viewer.querySelector(`input[name=${name}]`).checked = gallery.querySelector(`input[name=${name}]`).checked;
    }
    applyLayers(viewer);
    show(card);
  });
  // A browser may restore the controls of an earlier visit: the page follows them.
  applyLayers(gallery);
  order(gallery);
}

viewer.addEventListener("input", () => applyLayers(viewer));
viewer.addEventListener("click", (event) => {
  const action = event.target.closest("[data-do]")?.dataset.do;
  if (action === "close") viewer.close();
  else if (action) step(action === "next" ? 1 : -1);
  else if (event.target.closest(".stage")) stage.classList.toggle("zoomed");
});
viewer.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if (key === "arrowright") step(1);
  else if (key === "arrowleft") step(-1);
  else if (key === "t") toggle("truth");
  else if (key === "p") toggle("pred");
  else if (key === "d") toggle("diff");
  else if (key === "z") stage.classList.toggle("zoomed");
});
viewer.addEventListener("close", () => opened?.querySelector(".frame").focus());
stage.addEventListener("pointermove", (event) => {
  const box = stage.getBoundingClientRect();
  stage.style.setProperty("--x", `${(100 * (event.clientX - box.left)) / box.width}%`);
  stage.style.setProperty("--y", `${(100 * (event.clientY - box.top)) / box.height}%`);
});
