const box = document.getElementById("filter");
const menu = document.getElementById("menu");
const links = [...document.querySelectorAll("nav [data-search]")];

function filter() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const one of document.querySelectorAll("[data-search]")) {
    const shown = words.every((word) => one.dataset.search.includes(word));
    (one.matches("nav a") ? one.parentElement : one).hidden = !shown;
  }
  for (const group of document.querySelectorAll("nav section")) {
    group.hidden = !group.querySelector("li:not([hidden])");
  }
  for (const title of document.querySelectorAll("main > h2.part")) {
    title.hidden = !document.querySelector("main > .model:not([hidden])");
  }
  document.getElementById("none").hidden = links.some((link) => !link.parentElement.hidden);
}

box.addEventListener("input", filter);
filter();

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== box) {
    event.preventDefault();
    box.focus();
  } else if (event.key === "Escape" && document.activeElement === box) {
    box.value = "";
    filter();
  }
});

for (const link of links) {
  link.addEventListener("click", () => { menu.checked = false; });
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links) {
      link.classList.toggle("here", link.hash === "#" + entry.target.id);
    }
  }
}, { rootMargin: "-10% 0px -80% 0px" });
for (const section of document.querySelectorAll("main > section")) seen.observe(section);
