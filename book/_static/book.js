// A formula within a line that is wider than the column gets its own scroll bar.
// All are measured before one is changed: the page is laid out once, not once each.
function fitFormulas() {
  const found = [];
  for (const formula of document.querySelectorAll(".bd-article span.math")) {
    const block = formula.closest("p, li, dd, td, figcaption");
    const inner = formula.querySelector("mjx-container");
    if (block && inner) {
      const wide = inner.getBoundingClientRect().width > block.clientWidth;
      found.push([formula, wide]);
    }
  }
  for (const [formula, wide] of found) formula.classList.toggle("wide-formula", wide);
}

window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  fitFormulas();
});
window.addEventListener("resize", fitFormulas);

// One button opens and closes all folded code; the choice is remembered.
const CODE = "mfdnn-code";
const folds = () => document.querySelectorAll(".bd-article details.fold");

function setAll(open, button) {
  for (const fold of folds()) fold.open = open;
  button.textContent = open ? "Hide code" : "Show all code";
  button.setAttribute("aria-pressed", String(open));
}

function addFoldButton() {
  const title = document.querySelector(".bd-article h1");
  if (!title || !folds().length) return;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "fold-all";
  title.after(button);
  setAll(document.documentElement.classList.contains("code-open"), button);
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-pressed") !== "true";
    setAll(open, button);
    try {
      localStorage.setItem(CODE, open ? "open" : "folded");
    } catch {
      // Private windows: not remembered.
    }
  });
}

// A link into a folded cell opens it.
function openTarget() {
  const id = decodeURIComponent(location.hash.slice(1));
  const target = id ? document.getElementById(id) : null;
  const fold = target?.closest("details.fold:not([open])");
  if (fold) {
    fold.open = true;
    target.scrollIntoView();
  }
}

document.addEventListener("DOMContentLoaded", () => {
  addFoldButton();
  openTarget();
});
window.addEventListener("hashchange", openTarget);

// Browsers without ::details-content print what is open.
let closed = [];
window.addEventListener("beforeprint", () => {
  closed = [...folds()].filter((fold) => !fold.open);
  for (const fold of closed) fold.open = true;
});
window.addEventListener("afterprint", () => {
  for (const fold of closed) fold.open = false;
});
