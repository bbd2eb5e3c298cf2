/* The page's only script: tables sort by a click and filter by words, a line follows the sound, a
   click moves it. */
"use strict";

for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const column = head.cellIndex;
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const body = head.closest("table").tBodies[0];
    const rows = Array.from(body.rows);
    // Numbers, words, and what is missing, in this order whichever way they are sorted.
    const kind = (cell) => cell.dataset.v !== undefined ? 0 : cell.textContent.trim() === "–" ? 2 : 1;
    const compare = (a, b) => {
      const x = a.cells[column], y = b.cells[column];
      if (kind(x) !== kind(y)) return kind(x) - kind(y);
      if (kind(x) === 0) return sign * (x.dataset.v - y.dataset.v);
      return sign * x.textContent.localeCompare(y.textContent, undefined, { numeric: true });
    };
    body.append(...rows.sort(compare));
  });
}

for (const box of document.querySelectorAll(".filterable input")) {
  const rows = Array.from(box.parentElement.querySelectorAll("tbody tr"));
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    const shown = rows.filter((row) => !row.hidden).length;
    box.nextElementSibling.value = words.length ? shown + " of " + rows.length : "";
  });
}

for (const figure of document.querySelectorAll(".listen")) {
  const audio = figure.querySelector("audio");
  const seconds = Number(figure.dataset.seconds);
  const cursors = figure.querySelectorAll(".cursor");
  let moving = false;
  const follow = () => {
    for (const cursor of cursors) {
      cursor.style.left = 100 * audio.currentTime / seconds + "%";
      cursor.style.opacity = 1;
    }
    moving = !audio.paused;
    if (moving) requestAnimationFrame(follow);
  };
  for (const event of ["play", "seeked"]) {
    audio.addEventListener(event, () => { if (!moving) follow(); });
  }
  for (const plot of figure.querySelectorAll(".plot")) {
    plot.addEventListener("click", (event) => {
      const box = plot.getBoundingClientRect();
      audio.currentTime = seconds * (event.clientX - box.left) / box.width;
      audio.play().catch(() => {});  /* where a browser forbids it, the place is set */
    });
  }
}

document.documentElement.dataset.ready = "yes";
