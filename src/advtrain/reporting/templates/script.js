// A link into a closed <details> opens it, and those around it.
function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let place = target; place; place = place.parentElement) {
    if (place.tagName === "DETAILS") place.open = true;
  }
  // One cell in a group needs no second click.
  const cells = target.querySelectorAll(":scope > details");
  if (cells.length === 1) cells[0].open = true;
  target.scrollIntoView();
}
addEventListener("hashchange", reveal);
addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#"]');
  // A second click on the same link changes no hash.
  if (link && link.getAttribute("href") === location.hash) reveal();
});
reveal();
