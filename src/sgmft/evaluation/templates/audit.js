// Collects what is chosen for each post, keeps it while the page is away, and writes fixes.csv.
"use strict";
const articles = [...document.querySelectorAll("article[data-id]")];
const key = ({ dataset: { id, label, suggestion } }) => JSON.stringify([id, label, suggestion]); // of another audit others
const button = document.querySelector("button"), count = document.querySelector("#count");
const place = "sgmft-audit " + location.pathname;
let chosen = {};
try { chosen = JSON.parse(localStorage.getItem(place)) || {}; } catch { /* none, or not allowed */ }

function corrected(article) { // the new label, "" for none; undefined where nothing changes
  const { kind, name } = chosen[key(article)] || {};
  const label = { take: article.dataset.suggestion, other: (name || "").trim() || undefined, drop: "" }[kind];
  return label === article.dataset.label ? undefined : label;
}

function fixes() {
  const found = new Map();
  for (const article of articles) {
    const label = corrected(article);
    article.classList.toggle("changed", label !== undefined);
    if (label !== undefined) found.set(article.dataset.id, [article.dataset.id, article.dataset.label, label]);
  }
  return [...found.values()];
}

function show() {
  for (const article of articles) {
    const { kind, name } = chosen[key(article)] || {};
    article.querySelector(`[value=${kind || "keep"}]`).checked = true;
    const field = article.querySelector("[type=text]");
    if (field !== document.activeElement) field.value = name || "";
  }
  const number = fixes().length;
  count.textContent = number;
  button.disabled = !number;
}

for (const article of articles) {
  article.addEventListener("input", (event) => {
    const typed = event.target.type === "text";
    const name = article.querySelector("[type=text]").value;
    chosen[key(article)] = { kind: typed ? "other" : event.target.value, name };
    try { localStorage.setItem(place, JSON.stringify(chosen)); } catch { /* not allowed */ }
    show();
  });
}

button.addEventListener("click", () => {
  const cell = (x) => `"${x.replaceAll('"', '""')}"`;
  const rows = [["id", "label", "new_label"], ...fixes()].map((row) => row.map(cell).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff" + rows.join("\r\n") + "\r\n"], { type: "text/csv" }));
  link.download = "fixes.csv";
  link.click();
});

show();
