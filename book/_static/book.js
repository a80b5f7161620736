// A formula within a line that is wider than the column gets its own scroll bar.
function fitFormulas() {
  for (const formula of document.querySelectorAll(".bd-article span.math")) {
    const block = formula.closest("p, li, dd, td, figcaption");
    const inner = formula.querySelector("mjx-container");
    if (block && inner) {
      const wide = inner.getBoundingClientRect().width > block.clientWidth;
      formula.classList.toggle("wide-formula", wide);
    }
  }
}

window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  fitFormulas();
});
window.addEventListener("resize", fitFormulas);
