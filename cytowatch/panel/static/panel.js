// What the pages do beyond HTML: parts that ask again, keys, and pictures that are missing.
"use strict";

(() => {
  // Nothing changes on the page while a person reads a selection, has a menu open or types.
  const busy = () => {
    const chosen = document.getSelection();
    if (chosen && !chosen.isCollapsed && chosen.toString().trim()) return true;
    if (document.querySelector("main details[open][data-menu], main dialog[open]")) return true;
    const at = document.activeElement;
    return Boolean(at && at.closest("main") && at.matches("input, select, textarea"));
  };

  // A part with data-live asks again after as many seconds as its content says (data-every).
  const again = (part) => {
    const marker = part.querySelector("[data-every]");
    if (!marker) return;
    const pause = 1000 * Number(marker.dataset.every);
    setTimeout(() => {
      if (document.hidden || busy() || typeof htmx === "undefined") { again(part); return; }
      htmx.ajax("GET", part.dataset.live, { target: part, swap: "innerHTML" })
        .catch(() => {}).finally(() => again(part));
    }, pause);
  };

  // Moments are shown in the time of the reader's own clock.
  const two = (number) => String(number).padStart(2, "0");
  const local = (part) => part.querySelectorAll("time[data-moment]").forEach((one) => {
    const at = new Date(one.dateTime);
    if (Number.isNaN(at.valueOf())) return;
    one.title = `${one.dateTime.slice(0, 19).replace("T", " ")} UTC`;
    one.textContent = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ` +
      `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  });
  document.addEventListener("htmx:afterSwap", (event) => local(event.target));

  // A page that cannot be renewed says from when it is; one lost answer may be a restart.
  let missed = 0;
  let renewed = new Date();
  document.addEventListener("htmx:afterRequest", (event) => {
    const shown = document.getElementById("stale");
    missed = event.detail.successful ? 0 : missed + 1;
    if (!missed) {
      renewed = new Date();
      if (shown) shown.remove();
      return;
    }
    const part = document.querySelector("[data-live]");
    if (missed < 2 || shown || !part) return;
    const list = document.createElement("ul");
    list.id = "stale";
    list.className = "notices";
    list.setAttribute("role", "status");
    const line = list.appendChild(document.createElement("li"));
    line.appendChild(document.createElement("b")).textContent = "The panel does not answer.";
    line.append(` This page is as it was at ${two(renewed.getHours())}:${two(renewed.getMinutes())}.`);
    part.before(list);
  });

  const start = () => {
    local(document);
    document.querySelectorAll("[data-live]").forEach(again);
  };
  // A person may have begun to select while the answer was on its way.
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (busy() || event.detail.xhr.status !== 200) event.detail.shouldSwap = false;
    // Who is logged out meanwhile is led to the log-in, and back here.
    if (event.detail.xhr.status === 401 || event.detail.xhr.responseURL.includes("/login")) { event.detail.shouldSwap = false; location.reload(); }
  });

  // A thumbnail that does not exist yet leaves its glass empty.
  document.addEventListener("error", (event) => {
    if (event.target instanceof HTMLImageElement) event.target.hidden = true;
  }, true);

  // Keys: / searches, j and k move through rows, Enter opens (a link has the focus).
  const links = () => [...document.querySelectorAll("main .rows a.name, main td.name a, main a.card")];
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.matches("input, select, textarea, [contenteditable]")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.key === "/") {
      const field = document.querySelector("main input[name=name]") || document.getElementById("search");
      if (field) { event.preventDefault(); field.focus(); field.select(); }
    } else if (event.key === "j" || event.key === "k") {
      const all = links();
      if (!all.length) return;
      const at = all.indexOf(document.activeElement);
      const to = at < 0 ? 0 : Math.min(all.length - 1, Math.max(0, at + (event.key === "j" ? 1 : -1)));
      all[to].focus();
      all[to].scrollIntoView({ block: "nearest" });
    }
  });

  // A change that cannot be undone is asked for once more.
  document.addEventListener("submit", (event) => {
    const said = event.target.dataset.confirm;
    if (said && !window.confirm(said)) event.preventDefault();
  });

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
