// SPDX-License-Identifier: GPL-2.0-only
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const cell = byId("cell"), help = byId("help"), words = byId("words");
  let data = null; // what opens, read when it is first wanted

  const cells = () => (data ??= JSON.parse(byId("data")?.textContent || "{}"));
  const slug = () => location.hash.slice(1);

  // --- building elements; all text is text, never HTML

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const MARKS = {{ marks|tojson }};
  const mark = (verdict) => element("span", { class: `mark ${verdict}` }, MARKS[verdict]);

  function shown(test) {
    const made = element("section", {}, element("h3", {}, mark(test.verdict), ` ${test.name}`));
    const facts = [test.took, ...(test.news ?? [])];
    if (test.runs) facts.push(`${test.runs.length} runs: ${test.runs.join(", ")}`);
    made.append(element("p", { class: "facts" }, facts.join(" · ")));
    if (test.message) made.append(element("p", { class: "message" }, test.message));
    for (const splat of test.splats ?? []) made.append(element("p", { class: "message splat" }, splat));
    if (test.replay) {
      const copy = element("button", { type: "button", class: "copy" }, "copy");
      made.append(element("p", { class: "replay" }, element("code", {}, test.replay), copy));
    }
    if (test.links) {
      const links = test.links.map(([name, href]) => element("a", { href }, name));
      made.append(element("p", { class: "links" }, ...links));
    }
    (test.excerpts ?? []).forEach(([name, text], number) => {
      const excerpt = element("details", number < 2 ? { open: "" } : {}, element("summary", {}, name));
      excerpt.append(element("pre", { tabindex: "0", role: "region", "aria-label": name }, text));
      made.append(excerpt);
    });
    return made;
  }

  // --- what a link names is opened

  const QUIET = {{ quiet_verdicts|tojson }};

  function open() {
    const place = slug(), found = cell && cells()[place];
    if (!found) {
      if (cell?.open) cell.close();
      const target = byId(place);
      if (target?.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
      return;
    }
    byId("cell-title").textContent = title(byId(place));
    const tests = [...found].sort((a, b) => QUIET.includes(a.verdict) - QUIET.includes(b.verdict));
    byId("cell-tests").replaceChildren(...tests.map(shown));
    reveal(byId(place));
    if (!cell.open) cell.showModal();
    cell.scrollTop = 0;
    byId("cell-tests").focus({ preventScroll: true });
  }

  // of a cell of a table: what stands before its row, above its column and over its table
  function title(link) {
    const at = link.closest("td"), table = link.closest("table");
    const heads = [at.parentElement.querySelector("b"), table.tHead.rows[0].cells[at.cellIndex]];
    const [rule, mode] = heads.map((head) => head.textContent);
    return `${rule} ${mode}, ${table.parentElement.getAttribute("aria-label")}`;
  }

  function reveal(target) {
    for (let at = target?.parentElement; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  }

  let opener = null; // the link that was followed: the focus goes back to it

  function closed() {
    const target = opener?.isConnected && opener.hash.slice(1) === slug() ? opener : byId(slug());
    history.replaceState(null, "", location.pathname + location.search);
    target?.focus();
  }

  // --- search

  function text(link) {
    const found = cells()[link.id];
    const tests = found.map((t) => [t.name, t.verdict, t.message, ...(t.splats ?? []), ...(t.news ?? [])].join(" "));
    return [title(link), link.closest("tr").textContent, ...tests].join(" ").toLowerCase();
  }

  const texts = new Map(); // of each cell of a table, made once

  function filter() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdict = byId("verdict").value, kernel = byId("kernel").value;
    const active = wanted.length > 0 || verdict || kernel;
    const has = (said) => wanted.every((word) => said.includes(word));
    let number = 0, all = 0;
    for (const section of document.querySelectorAll("details.cell")) {
      const fits = !kernel || section.dataset.kernel === kernel;
      let any = false;
      for (const row of section.querySelectorAll(".verdicts tbody tr")) {
        let seen = false;
        for (const link of row.querySelectorAll("a.item")) {
          if (active && !texts.has(link.id)) texts.set(link.id, text(link));
          const matches = !active || (fits && isOf(link, verdict) && has(texts.get(link.id)));
          link.toggleAttribute("data-match", Boolean(active) && matches);
          all += 1;
          number += matches;
          seen ||= matches;
        }
        row.hidden = !seen;
        any ||= seen;
      }
      section.hidden = active && !any;
      if (active && any && !section.open) { section.open = true; section.dataset.opened = ""; }
      if (!active && "opened" in section.dataset) { section.open = false; delete section.dataset.opened; }
    }
    for (const told of document.querySelectorAll("article.told")) {
      const marked = told.querySelector(".mark");
      const fits = !kernel || [...told.querySelectorAll(".spots li")].some((spot) => spot.dataset.kernel === kernel);
      const right = !verdict || verdict === "new" || (verdict === "trouble" ? troubled(marked) : marked?.classList.contains(verdict));
      told.hidden = active && !(fits && right && has(told.textContent.toLowerCase()));
    }
    byId("found").textContent = active ? `${number} of ${all}` : "";
  }

  const troubled = (marked) => Boolean(marked) && !QUIET.some((verdict) => marked.classList.contains(verdict));

  function isOf(link, verdict) {
    if (!verdict) return true;
    if (verdict === "new") return link.closest("td").querySelector("i") !== null;
    if (verdict === "trouble") return cells()[link.id].some((test) => !QUIET.includes(test.verdict));
    return cells()[link.id].some((test) => test.verdict === verdict);
  }

  // --- keys

  const isShown = (link) => link.checkVisibility?.() ?? link.offsetParent !== null;

  function step(by) {
    const searched = document.querySelector("a[data-match]") !== null;
    const items = [...document.querySelectorAll(searched ? "a[data-match]" : "a[data-hot]")];
    const stops = items.filter((link) => !link.closest("[hidden]") && (searched || isShown(link)));
    if (!stops.length) return;
    const now = cell.open ? current(stops) : stops.indexOf(document.activeElement);
    const next = stops[now < 0 ? (by > 0 ? 0 : stops.length - 1) : Math.min(Math.max(now + by, 0), stops.length - 1)];
    if (cell.open) { opener = next; location.hash = next.hash; } else go(next);
  }

  function current(stops) {
    const followed = stops.indexOf(opener);
    return followed >= 0 ? followed : stops.findIndex((link) => link.hash.slice(1) === slug());
  }

  function go(link) {
    reveal(link);
    link.focus({ preventScroll: true });
    link.scrollIntoView({ block: "nearest" });
    link.closest("article")?.scrollIntoView({ block: "nearest" });
  }

  function arrow(key, link) {
    const at = link.closest("td");
    if (!at) { if (key === "ArrowUp" || key === "ArrowDown") { step(key === "ArrowDown" ? 1 : -1); return true; } return false; }
    const sideways = key === "ArrowLeft" || key === "ArrowRight";
    const side = key === "ArrowLeft" || key === "ArrowUp" ? "previousElementSibling" : "nextElementSibling";
    const row = at.parentElement;
    for (let next = (sideways ? at : row)[side]; next; next = next[side]) {
      const found = (sideways ? next : next.cells[at.cellIndex]).querySelector("a.item");
      if (found && !next.hidden) { go(found); return true; }
    }
    return true;
  }

  function pressed(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const at = event.target;
    if (at.matches("input, select")) {
      if (event.key === "Escape" && at === words) { words.value = ""; filter(); words.blur(); event.preventDefault(); }
      return;
    }
    const done = act(event.key, at);
    if (done) event.preventDefault();
  }

  function act(key, at) {
    if (help.open) return false;
    switch (key) {
      case "j": step(1); return true;
      case "k": step(-1); return true;
      case "?": help.showModal(); return true;
      case "/": if (cell.open) cell.close(); words.focus(); words.select(); return true;
      case "[": case "]": document.querySelector(key === "[" ? "a[rel=prev]" : "a[rel=next]")?.click(); return true;
      case "Escape":
        if (!cell.open && words.value) { words.value = ""; filter(); }
        return false;
    }
    return key.startsWith("Arrow") && at.matches("a.item") && arrow(key, at);
  }

  async function copied(button) {
    const code = button.previousElementSibling;
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    } catch {
      getSelection().selectAllChildren(code);
    }
  }

  // --- a page that is served shows the night as it goes on

  async function follow(url) {
    let known = await state(url);
    setInterval(async () => {
      const now = await state(url);
      if (now && known && now !== known && await renew()) known = now;
      known ||= now;
    }, 2000);
  }

  async function state(url) {
    try {
      const answer = await fetch(url, { cache: "no-store" });
      return answer.ok ? await answer.text() : null;
    } catch {
      return null; // the server is gone; it may come back
    }
  }

  async function renew() {
    const answer = await fetch(location.pathname, { cache: "no-store" });
    if (!answer.ok) return false;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const focused = document.activeElement?.id;
    for (const kept of document.querySelectorAll("main details[id]")) {
      const next = fresh.getElementById(kept.id);
      if (next) next.open = kept.open;
    }
    byId("content").replaceWith(document.adoptNode(fresh.getElementById("content")));
    data = null;
    texts.clear();
    ready();
    if (cell?.open) open();
    else if (focused && byId(focused)?.matches("main a")) byId(focused).focus({ preventScroll: true });
    return true;
  }

  function ready() {
    for (const button of document.querySelectorAll(".copy")) button.hidden = false;
    if (words) filter();
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".copy"), link = event.target.closest("a.item");
    if (button) copied(button);
    if (link) opener = link;
    if (link && link.hash.slice(1) === slug()) open();
    if (event.target === cell || event.target === help) event.target.close();
  });
  if (cell) {
    byId("filter").hidden = false;
    byId("filter").addEventListener("input", filter);
    byId("filter").addEventListener("submit", (event) => event.preventDefault());
    byId("ask").addEventListener("click", () => help.showModal());
    cell.addEventListener("close", closed);
    addEventListener("hashchange", open);
    document.addEventListener("keydown", pressed);
  }
  ready();
  if (slug()) open();
  if (document.body.dataset.live) follow(document.body.dataset.live);
})();
