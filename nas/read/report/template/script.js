// What a page without a script cannot do: the panel of a network, words beside the pointer, keys in charts, the theme.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("payload").textContent);
  const panel = document.getElementById("panel"), tip = document.getElementById("tip");
  let back = null;

  // Everything that comes from the study becomes text, never markup.
  function make(tag, text, className) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  }
  function table(head, rows) {
    const box = make("div", undefined, "scroll"), table = make("table"), line = make("tr");
    box.tabIndex = 0;
    for (const name of head) line.append(make("th", name));
    table.append(make("thead"), make("tbody"));
    table.tHead.append(line);
    for (const row of rows) {
      const line = make("tr");
      for (const value of row) line.append(make("td", value));
      table.tBodies[0].append(line);
    }
    box.append(table);
    return box;
  }
  function facts(pairs) {
    const list = make("dl", undefined, "facts");
    for (const [name, value] of pairs) list.append(make("dt", name), make("dd", value, name === "digest" ? name : ""));
    return list;
  }

  // --- the panel of a network
  function blocksOf(network) {
    const names = [...new Set(network.blocks.flatMap(i => data.columns[data.blocks[i][0]]))];
    return table(names, network.blocks.map(i => {
      const [columns, ...values] = data.blocks[i];
      return names.map(name => values[data.columns[columns].indexOf(name)] ?? "");
    }));
  }
  function show(number, from) {
    const network = data.networks[number];
    if (!network) return;
    back = from;
    const close = make("button", "Close", "close");
    close.type = "button";
    close.addEventListener("click", hide);
    panel.replaceChildren(close, make("h2", network.text));
    panel.append(facts([["digest", network.digest], ["MACs of one clip", network.macs], ["params", network.params],
      ["activations", network.memory]]));
    if (network.results.length) panel.append(make("h3", "Results"), table(["after", "split", `${data.metric} (95 %)`], network.results));
    panel.append(make("h3", "Blocks"));
    if (network.blocks.length) panel.append(blocksOf(network));
    if (network.note) panel.append(make("p", network.note, "note"));
    const settings = Object.entries(network.settings);
    if (settings.length) panel.append(make("h3", "Settings"), facts(settings));
    panel.append(make("pre", data.show.replace("DIGEST", network.digest.slice(0, 10))));
    for (const other of document.querySelectorAll(".mark.chosen")) other.classList.remove("chosen");
    for (const mark of document.querySelectorAll(`.mark[data-n="${number}"]`)) mark.classList.add("chosen");
    panel.hidden = false;
    panel.scrollTop = 0;
    document.body.classList.add("open"); // on a wide window the page makes room
    if (from) from.scrollIntoView({block: "nearest"});
    panel.focus({preventScroll: true});
    tip.hidden = true;
  }
  function hide() {
    panel.hidden = true;
    document.body.classList.remove("open");
    for (const mark of document.querySelectorAll(".mark.chosen")) mark.classList.remove("chosen");
    if (back) back.focus({preventScroll: true});
  }
  document.addEventListener("keydown", event => { if (event.key === "Escape" && !panel.hidden) hide(); });
  document.addEventListener("click", event => {
    const button = event.target.closest("button.network");
    if (button) show(Number(button.dataset.n), button);
  });

  // --- words beside the pointer
  function say(element, x, y) {
    const network = data.networks[element.dataset.n];
    tip.replaceChildren();
    if (network) {
      tip.append(make("b", network.text), make("code", network.digest.slice(0, 10)),
        ` ${network.macs} MACs, ${network.params} params`, make("br"));
    }
    tip.append(element.dataset.l ?? "");
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - box.width - 8))}px`;
    tip.style.top = `${y + box.height + 20 > innerHeight ? Math.max(8, y - box.height - 12) : y + 16}px`;
  }

  function nearestMark(marks, box, x, y, reach) {
    let best = null, least = reach * reach;
    for (const mark of marks) {
      const dx = mark.cx.baseVal.valueInSpecifiedUnits / 100 * box.width - x;
      const dy = mark.cy.baseVal.valueInSpecifiedUnits / 100 * box.height - y;
      const far = (dx * dx + dy * dy) * (mark.classList.contains("low") ? 2 : 1);
      if (far < least) [best, least] = [mark, far];
    }
    return best;
  }
  function nearestLine(lines, box, x, y, reach) {
    let best = null, least = reach * reach;
    for (const line of lines) {
      line.vertices ??= line.getAttribute("points").split(" ").map(pair => pair.split(",").map(Number));
      for (const [a, b] of line.vertices) {
        const far = (a / 1000 * box.width - x) ** 2 + (b / 1000 * box.height - y) ** 2;
        if (far < least) [best, least] = [line, far];
      }
    }
    return best;
  }

  for (const plot of document.querySelectorAll(".plot")) {
    const marks = [...plot.querySelectorAll("circle.mark")];
    const lines = [...plot.querySelectorAll("polyline[data-n]")];
    let lit = null;
    function find(event) {
      const box = plot.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
      const reach = event.pointerType === "touch" ? 34 : 22;
      return nearestMark(marks, box, x, y, reach) ?? nearestLine(lines, box, x, y, reach);
    }
    function light(element) {
      if (element === lit) return;
      if (lit) lit.classList.remove("lit");
      lit = element;
      if (lit) lit.classList.add("lit");
    }
    function dark() {
      light(null);
      tip.hidden = true;
    }
    plot.addEventListener("pointermove", event => {
      const found = find(event);
      plot.style.cursor = found && found.dataset.n ? "pointer" : "";
      if (!found) return dark();
      light(found);
      say(found, event.clientX, event.clientY);
    });
    plot.addEventListener("pointerleave", dark);
    plot.addEventListener("click", event => {
      const found = find(event);
      if (found && found.dataset.n) show(Number(found.dataset.n), found.getAttribute("tabindex") === null ? null : found);
    });
    // Tab goes through the front; arrows go through all networks of the highest rung, from cheap to dear.
    const row = marks.filter(mark => mark.hasAttribute("tabindex"))
      .sort((a, b) => a.cx.baseVal.valueInSpecifiedUnits - b.cx.baseVal.valueInSpecifiedUnits);
    for (const [i, mark] of row.entries()) {
      mark.addEventListener("focus", () => {
        const box = mark.getBoundingClientRect();
        if (mark.matches(":focus-visible")) say(mark, box.right, box.bottom);
      });
      mark.addEventListener("blur", dark);
      mark.addEventListener("keydown", event => {
        const step = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1}[event.key];
        if (step) row[Math.max(0, Math.min(row.length - 1, i + step))].focus();
        else if (event.key === "Enter" || event.key === " ") show(Number(mark.dataset.n), mark);
        else return;
        event.preventDefault();
      });
    }
  }

  // --- theme: the system's until the reader chooses
  const button = document.getElementById("theme"), root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  function remembered(value) {
    try {
      if (value !== undefined) localStorage.setItem("nas-report-theme", value);
      return localStorage.getItem("nas-report-theme");
    } catch { return null; }
  }
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  function name() { button.textContent = isDark() ? "Light theme" : "Dark theme"; }
  const old = remembered();
  if (old === "dark" || old === "light") root.dataset.theme = old;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remembered(root.dataset.theme);
    name();
  });
  system.addEventListener("change", name);
  name();
  button.hidden = false;

  // --- contents: where the reader is
  const links = new Map([...document.querySelectorAll(".toc a")].map(a => [a.getAttribute("href").slice(1), a]));
  const seen = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.classList.remove("here");
      links.get(entry.target.id).classList.add("here");
    }
  }, {rootMargin: "-10% 0px -75% 0px"});
  for (const id of links.keys()) seen.observe(document.getElementById(id));

  // Confusion matrices are printed, open or not.
  addEventListener("beforeprint", () => { for (const d of document.querySelectorAll("details.confusion")) d.open = true; });
})();
