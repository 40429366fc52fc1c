"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("index").textContent);
  const col = data.columns, N = col.name.length, ROW = 24, PRINTED = 1000, INDENT = 14;
  const whole = Math.max(data.length, 1);
  const parent = Int32Array.from(col.parent), below = Int32Array.from(col.below);
  const depth = new Int32Array(N), badBelow = new Int32Array(N), closed = new Uint8Array(N);
  let keep = null, found = null, matches = [], rows = [], chosen = -1, opened = -1, view = [0, whole], printing = false, scan = 0;

  for (let i = 0; i < N; i++) depth[i] = parent[i] < 0 ? 0 : depth[parent[i]] + 1;
  for (let i = N - 1; i >= 0; i--) if (parent[i] >= 0) badBelow[parent[i]] += badBelow[i] + col.bad[i];

  const deepest = () => window.innerWidth < 900 ? 6 : 16;
  const isMark = (i) => i === data.mark;
  const nameOf = (i) => isMark(i) ? `${below[i].toLocaleString("en")} spans whose parent is not here` : data.names[col.name[i]] || "(no name)";
  const word = (list, i) => i < 0 ? "" : list[i];
  const end = (i) => col.length[i] < 0 ? whole : col.start[i] + col.length[i];
  const count = (value) => value.toLocaleString("en");

  function length(us) {
    if (us < 0) return "open";
    if (us === 0) return "0 ms";
    const ms = us / 1000;
    if (ms < 0.9995) return `${Math.max(1, Math.round(us))} µs`;
    for (const [limit, size, unit] of [[999.5, 1, "ms"], [59950, 1000, "s"]]) {
      if (ms < limit) { const v = ms / size; return `${v.toFixed(v < 9.995 ? 2 : v < 99.95 ? 1 : 0)} ${unit}`; }
    }
    const s = Math.round(ms / 1000), m = Math.round(s / 60);
    if (s < 3600) return s % 60 ? `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, "0")} s` : `${s / 60} min`;
    return m < 2880 ? `${Math.floor(m / 60)} h ${String(m % 60).padStart(2, "0")} min` : `${Math.floor(m / 1440)} d ${Math.floor(m % 1440 / 60)} h`;
  }
  // Labels of an axis: one unit, and as many decimals as tell its steps apart.
  function tickText(at, step) {
    if (at === 0) return "0";
    if (step >= 60e6) return length(at);
    const [size, unit] = at + step >= 1e6 ? [1e6, "s"] : at + step >= 1e3 ? [1e3, "ms"] : [1, "µs"];
    return `${(at / size).toLocaleString("en", { minimumFractionDigits: 0, maximumFractionDigits: Math.max(0, Math.min(9, Math.ceil(-Math.log10(step / size) - 1e-9))) })} ${unit}`;
  }
  const short = (v) => v < 0 ? "?" : v < 1000 ? String(v) : v < 999950 ? `${(v / 1000).toFixed(1)}k` : `${(v / 1e6).toFixed(1)}M`;
  const cost = (v) => v < 0 ? "" : v === 0 ? "$0" : v >= 1 ? `$${v.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 })}` : `$${Number(v.toPrecision(2)).toFixed(10).replace(/0+$/, "")}`;

  // Control characters and those that turn the direction of a line are shown as what they are.
  const clean = (text) => text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
  // Every text of a span enters the page as a text node: nothing in it can become markup.
  function make(tag, kind, text) {
    const it = document.createElement(tag);
    if (kind) it.className = kind;
    if (text !== undefined) it.textContent = clean(String(text));
    return it;
  }

  // ---- which rows there are ------------------------------------------------------------------------------------------------
  function settle() {
    rows = [];
    for (let i = 0; i < N;) {
      if (keep) { if (keep[i]) { rows.push(i); i++; } else i += below[i] + 1; }
      else { rows.push(i); i += closed[i] ? below[i] + 1 : 1; }
    }
    $("space").style.height = `${rows.length * ROW}px`;
    $("scroll").setAttribute("aria-rowcount", rows.length);
    draw();
  }

  function foldToFit(limit) {
    closed.fill(0);
    const levels = [];
    for (let i = 0; i < N; i++) levels[depth[i]] = (levels[depth[i]] || 0) + 1;
    let total = 0, deepest = 0;
    while (deepest < levels.length && total + levels[deepest] <= limit) total += levels[deepest++];
    if (deepest < levels.length) for (let i = 0; i < N; i++) if (below[i] && depth[i] >= Math.max(deepest - 1, 1)) closed[i] = 1;
  }

  function reveal(i) { for (let up = parent[i]; up >= 0; up = parent[up]) closed[up] = 0; }

  // ---- searching and filtering --------------------------------------------------------------------------------------------
  function search() {
    const text = $("q").value.trim().toLowerCase(), agent = $("agent").value, status = $("status").value, mine = ++scan;
    remember();
    if (!text && !agent && !status) { keep = found = null; matches = []; tell(); settle(); return; }
    const allowed = (i) => !isMark(i) && (!agent || col.agent[i] === Number(agent)) &&
      (!status || (status === "critical" ? col.critical[i] > 0 : (status === "error") === (col.bad[i] === 1)));
    const plain = text ? data.names.map((name) => name.toLowerCase().includes(text)) : null;
    const lists = text ? [[data.agents, col.agent], [data.operations, col.operation], [data.models, col.model]].map(([list, at]) => [list.map((each) => each.toLowerCase().includes(text)), at]) : [];
    const hit = new Uint8Array(N);
    for (let i = 0; i < N; i++) {
      if (!allowed(i)) continue;
      hit[i] = !text || plain[col.name[i]] || lists.some(([list, at]) => at[i] >= 0 && list[at[i]]) || col.id[i].startsWith(text) ? 1 : 0;
    }
    show(hit);
    if (text && $("deep").checked) searchDeep(text, allowed, hit, mine);
  }

  function show(hit) {
    found = hit; matches = []; keep = new Uint8Array(N);
    for (let i = 0; i < N; i++) {
      if (!hit[i]) continue;
      matches.push(i);
      for (let up = i; up >= 0 && !keep[up]; up = parent[up]) keep[up] = 1;
    }
    tell(); settle();
  }

  async function searchDeep(text, allowed, hit, mine) {
    const chunks = Math.ceil(N / data.chunk);
    for (let c = 0; c < chunks; c++) {
      const list = await chunk(c);
      if (mine !== scan) return;
      list.forEach((each, at) => {
        const i = c * data.chunk + at;
        if (each && !hit[i] && allowed(i) && JSON.stringify([each.inputs, each.outputs, each.attributes, each.events, each.facts, each.error_type, each.error_message]).toLowerCase().includes(text)) hit[i] = 1;
      });
      if (c % 20 === 19) tell(`looked through ${count(Math.min(N, (c + 1) * data.chunk))}`);
    }
    show(hit);
  }

  function tell(more) {
    const spans = N - (data.mark >= 0 ? 1 : 0);
    $("count").textContent = (found ? `${count(matches.length)} of ${count(spans)} spans` : `${count(spans)} spans`) + (more ? `, ${more}` : "");
  }

  // ---- drawing -------------------------------------------------------------------------------------------------------------
  const percent = (us) => 100 * (us - view[0]) / (view[1] - view[0]);

  function rowOf(at) {
    const i = rows[at], row = make("div", "row");
    row.style.top = `${at * ROW}px`;
    row.id = `r${i}`; row.dataset.i = i;
    for (const [name, value] of [["role", "row"], ["aria-level", depth[i] + 1], ["aria-rowindex", at + 1], ["aria-selected", i === chosen]]) row.setAttribute(name, value);
    if (below[i]) row.setAttribute("aria-expanded", !closed[i] || Boolean(keep));
    if (col.bad[i]) row.classList.add("bad");
    if (isMark(i)) row.classList.add("mark");
    if (i === chosen) row.classList.add("chosen");
    if (found && !found[i]) row.classList.add("dim");
    else if (found && $("q").value) row.classList.add("found");
    const name = make("span", "name");
    name.setAttribute("role", "gridcell");
    name.style.paddingLeft = `${6 + Math.min(depth[i], deepest()) * INDENT}px`;
    const isClosed = closed[i] && !keep;
    const caret = make("button", `caret${below[i] ? "" : " none"}${isClosed && badBelow[i] ? " bad" : ""}`, isClosed ? "▸" : "▾");
    caret.tabIndex = -1;
    caret.setAttribute("aria-label", isClosed ? "expand" : "collapse");
    name.append(caret);
    if (depth[i] > deepest()) name.append(make("span", "depth", String(depth[i])));
    const text = make("span", "text", nameOf(i));
    text.title = clean(nameOf(i));
    name.append(text);
    if (col.agent[i] >= 0 && !nameOf(i).includes(data.agents[col.agent[i]])) name.append(make("span", "agent", data.agents[col.agent[i]]));
    if (isClosed) name.append(make("span", "below", `+${count(below[i])}${badBelow[i] ? `, ${count(badBelow[i])} err` : ""}`));
    row.append(name);
    const known = col.tokens_in[i] >= 0 || col.tokens_out[i] >= 0;
    for (const [kind, value] of [["num", isMark(i) ? "" : length(col.length[i])], ["num tokens", known ? `${short(col.tokens_in[i])} / ${short(col.tokens_out[i])}` : ""], ["num cost", cost(col.cost[i])]]) {
      const cell = make("span", kind, value);
      cell.setAttribute("role", "gridcell");
      row.append(cell);
    }
    const track = make("span", "track");
    if (!isMark(i)) {
      const from = percent(col.start[i]), to = percent(end(i));
      if (to >= 0 && from <= 100) {
        const bar = make("span", `bar${col.critical[i] > 0 ? " critical" : ""}${col.bad[i] ? " bad" : ""}${col.length[i] < 0 ? " open" : ""}`);
        const left = Math.max(from, -1);
        bar.style.left = `min(${left}%, calc(100% - 2px))`;
        bar.style.width = `${Math.min(to, 101) - left}%`;
        bar.title = `${clean(nameOf(i))}: ${length(col.length[i])}, from ${length(col.start[i])}; own ${length(col.own[i])}`;
        track.append(bar);
      }
    }
    row.append(track);
    return row;
  }

  let waits = false;
  function draw() {
    if (waits) return;
    waits = true;
    requestAnimationFrame(drawNow);
  }

  function drawNow() {
    waits = false;
    const box = $("scroll"), first = printing ? 0 : Math.max(0, Math.floor(box.scrollTop / ROW) - 8);
    const last = printing ? Math.min(rows.length, PRINTED) : Math.min(rows.length, Math.ceil((box.scrollTop + box.clientHeight) / ROW) + 8);
    const list = document.createDocumentFragment();
    for (let at = first; at < last; at++) list.append(rowOf(at));
    if (!rows.length) list.append(make("p", "note", "No span fits."));
    $("space").replaceChildren(list);
    if (chosen >= 0) box.setAttribute("aria-activedescendant", `r${chosen}`);
    drawAxis();
  }

  function drawAxis() {
    const axis = $("axis"), width = axis.clientWidth || 400, span = view[1] - view[0];
    const rough = span / Math.max(2, width / 95), size = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((each) => each * size).find((each) => each >= rough);
    axis.replaceChildren();
    for (let at = Math.ceil(view[0] / step) * step; percent(at) * width < 100 * (width - 58); at += step) {
      const tick = make("span", "", tickText(at, step));
      tick.style.left = `${percent(at)}%`;
      axis.append(tick);
    }
    const [from, to] = [100 * view[0] / whole, 100 * view[1] / whole];
    $("window").style.left = `${from}%`; $("window").style.right = `${100 - to}%`;
    $("window").style.visibility = from <= 0 && to >= 100 ? "hidden" : "visible";
  }

  function drawOverview() {
    const canvas = $("overview"), width = canvas.clientWidth, height = 46, scale = window.devicePixelRatio || 1;
    if (!width) return;
    canvas.width = width * scale; canvas.height = height * scale;
    const paint = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    paint.scale(scale, scale);
    const steps = new Int32Array(width + 1), errors = new Uint8Array(width);
    for (let i = 0; i < N; i++) {
      if (isMark(i)) continue;
      const from = Math.min(width - 1, Math.floor(col.start[i] / whole * width)), to = Math.max(from + 1, Math.min(width, Math.ceil(end(i) / whole * width)));
      steps[from]++; steps[to]--;
      if (col.bad[i]) errors[from] = 1;
    }
    let now = 0, most = 1;
    const busy = Array.from({ length: width }, (_, x) => { now += steps[x]; most = Math.max(most, now); return now; });
    paint.fillStyle = style.getPropertyValue("--beside");
    busy.forEach((value, x) => { if (value) { const tall = Math.max(2, (height - 8) * Math.log1p(value) / Math.log1p(most)); paint.fillRect(x, height - tall, 1, tall); } });
    paint.fillStyle = style.getPropertyValue("--bad");
    errors.forEach((value, x) => { if (value) paint.fillRect(x, 0, 2, 6); });
  }

  // ---- the time axis -------------------------------------------------------------------------------------------------------
  function zoomTo(from, to) {
    const least = Math.max(whole / 1e6, 1);
    if (to - from < least) { const middle = (from + to) / 2; from = middle - least / 2; to = middle + least / 2; }
    const span = Math.min(whole, to - from);
    from = Math.max(0, Math.min(from, whole - span));
    view = [from, from + span];
    draw();
  }
  const zoomAbout = (factor, at) => zoomTo(at - (at - view[0]) * factor, at + (view[1] - at) * factor);
  const middle = () => chosen >= 0 && end(chosen) > view[0] && col.start[chosen] < view[1] ? Math.max(view[0], col.start[chosen]) : (view[0] + view[1]) / 2;
  const move = (share) => { const by = (view[1] - view[0]) * share; zoomTo(view[0] + by, view[1] + by); };

  // ---- details -------------------------------------------------------------------------------------------------------------
  let kept = [-1, null];
  async function chunk(c) {
    if (kept[0] === c) return kept[1];
    if (typeof DecompressionStream === "undefined") throw new Error("This browser cannot unpack the details (no DecompressionStream); e2i trace show --json has them.");
    const packed = Uint8Array.from(atob($(`d${c}`).textContent), (each) => each.charCodeAt(0));
    const text = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
    kept = [c, JSON.parse(text)];
    return kept[1];
  }

  const asText = (value) => typeof value === "string" ? value : JSON.stringify(value);
  function pretty(value) {
    if (typeof value !== "string") return JSON.stringify(value, null, 2);
    try { const read = JSON.parse(value); return typeof read === "object" && read !== null ? JSON.stringify(read, null, 2) : value; } catch { return value; }
  }

  function folded(title, size, fill) {
    const box = make("details"), head = make("summary", "", title);
    head.append(make("span", "size", size));
    box.append(head);
    box.addEventListener("toggle", () => { if (box.open && box.childElementCount === 1) box.append(fill()); });
    return box;
  }

  function pairs(list) {
    const dl = make("dl");
    for (const [name, value] of list) dl.append(make("dt", "", name), make("dd", "", asText(value)));
    return dl;
  }

  const sized = (text) => `${count(text.length)} character${text.length === 1 ? "" : "s"}`;

  async function open(i) {
    if (i < 0 || isMark(i)) return;
    opened = i;
    const panel = $("detail");
    if (panel.hidden) { panel.hidden = false; drawOverview(); draw(); }
    let told;
    try { told = (await chunk(Math.floor(i / data.chunk)))[i % data.chunk]; } catch (error) { panel.replaceChildren(make("p", "error", error.message)); return; }
    if (opened !== i) return;
    const top = make("div", "top"), close = make("button", "", "Close");
    close.addEventListener("click", shut);
    top.append(make("h2", "", nameOf(i)), close);
    const parts = [top];
    if (col.bad[i]) parts.push(make("p", "error", [told.error_type, told.error_message].filter(Boolean).join(": ") || "failed, with no message"));
    const tokens = col.tokens_in[i] >= 0 || col.tokens_out[i] >= 0;
    parts.push(pairs([
      ["duration", length(col.length[i])], ["own time", length(col.own[i])], ["critical path", col.critical[i] > 0 ? length(col.critical[i]) : "beside it"],
      ["started", `${told.started_at}  (+${length(col.start[i])})`], ["status", col.bad[i] ? "error" : "success"],
      ["agent", word(data.agents, col.agent[i])], ["operation", word(data.operations, col.operation[i])], ["model", word(data.models, col.model[i])],
      ["tokens", tokens ? `${short(col.tokens_in[i])} in, ${short(col.tokens_out[i])} out` : ""], ["cost", cost(col.cost[i])], ...Object.entries(told.facts),
    ].filter(([, value]) => value !== "")));
    for (const [title, values] of [["Input", told.inputs], ["Output", told.outputs]]) {
      for (const [name, value] of Object.entries(values)) {
        const heading = Object.keys(values).length > 1 ? `${title}: ${name}` : title;
        parts.push(folded(heading, sized(asText(value)), () => make("pre", "", pretty(value))));
      }
    }
    const attributes = Object.entries(told.attributes);
    if (attributes.length) parts.push(folded("Attributes", count(attributes.length), () => pairs(attributes)));
    for (const event of told.events) {
      parts.push(folded(`Event: ${event.name}`, `+${length(Math.max(0, event.at_us))}`, () => {
        const box = make("div");
        const { "exception.stacktrace": stack, ...others } = event.attributes;
        box.append(pairs(Object.entries(others)));
        if (stack) box.append(make("pre", "", asText(stack)));
        return box;
      }));
    }
    if (told.links.length) parts.push(folded("Links", count(told.links.length), () => pairs(told.links.flatMap((each) => [["trace", each.trace], ["span", each.span], ...Object.entries(each.attributes)]))));
    panel.replaceChildren(...parts);
    panel.scrollTop = 0;
    remember();
  }

  function shut() { opened = -1; $("detail").hidden = true; $("scroll").focus(); remember(); drawOverview(); draw(); }

  // ---- moving --------------------------------------------------------------------------------------------------------------
  function choose(i, isOpening) {
    chosen = i;
    if (!keep) { let hidden = false; for (let up = parent[i]; up >= 0; up = parent[up]) hidden = hidden || closed[up] === 1; if (hidden) { reveal(i); settle(); } }
    const at = place(i), box = $("scroll");
    if (at >= 0) {
      if (at * ROW < box.scrollTop) box.scrollTop = at * ROW;
      else if ((at + 1) * ROW > box.scrollTop + box.clientHeight) box.scrollTop = (at + 1) * ROW - box.clientHeight;
    }
    if (isOpening || opened >= 0) open(i);
    draw();
  }

  function place(i) {
    let low = 0, high = rows.length - 1;
    while (low <= high) { const at = (low + high) >> 1; if (rows[at] === i) return at; if (rows[at] < i) low = at + 1; else high = at - 1; }
    return -1;
  }

  function toggle(i, isClosed) { if (below[i] && !keep) { closed[i] = isClosed ? 1 : 0; settle(); } }
  function step(by) { const at = place(chosen); if (rows.length) choose(rows[Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + by))]); }
  function jump(by) {
    const list = found ? matches : Array.from({ length: N }, (_, i) => i).filter((i) => col.bad[i]);
    if (!list.length) return;
    const next = by > 0 ? list.find((i) => i > chosen) : list.findLast((i) => i < chosen);
    choose(next === undefined ? list[by > 0 ? 0 : list.length - 1] : next, true);
  }

  const pageSize = () => Math.max(1, Math.floor($("scroll").clientHeight / ROW) - 1);
  const KEYS = {
    ArrowDown: () => step(1), j: () => step(1), ArrowUp: () => step(-1), k: () => step(-1), PageDown: () => step(pageSize()), PageUp: () => step(-pageSize()),
    Home: () => step(-N), End: () => step(N), Enter: () => open(chosen), " ": () => open(chosen), Escape: () => (opened >= 0 ? shut() : clear()),
    ArrowRight: () => { if (chosen >= 0 && below[chosen]) { if (closed[chosen]) toggle(chosen, false); else step(1); } },
    ArrowLeft: () => { if (chosen < 0) return; if (below[chosen] && !closed[chosen] && !keep) toggle(chosen, true); else if (parent[chosen] >= 0) choose(parent[chosen]); },
    n: () => jump(1), p: () => jump(-1), "/": () => $("q").focus(), "+": () => zoomAbout(0.5, middle()), "=": () => zoomAbout(0.5, middle()), "-": () => zoomAbout(2, middle()),
    "[": () => move(-0.3), "]": () => move(0.3), 0: () => zoomTo(0, whole), z: () => { if (chosen >= 0) { const room = (end(chosen) - col.start[chosen]) * 0.05; zoomTo(col.start[chosen] - room, end(chosen) + room); } },
    E: () => { closed.fill(0); settle(); }, C: () => { for (let i = 0; i < N; i++) closed[i] = below[i] ? 1 : 0; settle(); }, "?": () => $("help").click(),
  };
  function clear() { $("q").value = $("agent").value = $("status").value = ""; search(); }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = event.target.tagName;
    if (at === "INPUT" && event.target.type === "search") {
      if (event.key === "Enter") { jump(1); event.preventDefault(); } else if (event.key === "Escape") { $("scroll").focus(); }
      return;
    }
    if (at === "SELECT" || (["BUTTON", "SUMMARY", "INPUT"].includes(at) && ["Enter", " "].includes(event.key)) || ($("detail").contains(event.target) && event.key !== "Escape")) return;
    if (Object.hasOwn(KEYS, event.key)) { KEYS[event.key](); event.preventDefault(); }
  });
  $("scroll").addEventListener("scroll", draw, { passive: true });
  $("scroll").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    const i = Number(row.dataset.i);
    if (event.target.closest(".caret")) { chosen = i; toggle(i, !closed[i]); } else choose(i, true);
  });
  $("scroll").addEventListener("dblclick", (event) => { if (event.target.closest(".track")) KEYS.z(); });
  $("scroll").addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const box = $("axis").getBoundingClientRect();
    zoomAbout(event.deltaY > 0 ? 1.25 : 0.8, view[0] + (view[1] - view[0]) * Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)));
  }, { passive: false });

  let drag = null;
  const timeAt = (event) => { const box = $("overview").getBoundingClientRect(); return whole * Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)); };
  $("overview").parentElement.addEventListener("pointerdown", (event) => { drag = timeAt(event); event.currentTarget.setPointerCapture(event.pointerId); });
  $("overview").parentElement.addEventListener("pointermove", (event) => { if (drag !== null) { const at = timeAt(event); if (Math.abs(at - drag) > whole / 300) zoomTo(Math.min(drag, at), Math.max(drag, at)); } });
  $("overview").parentElement.addEventListener("pointerup", () => { drag = null; });
  $("overview").parentElement.addEventListener("dblclick", () => zoomTo(0, whole));

  let timer = 0;
  $("q").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, $("deep").checked ? 350 : 80); });
  for (const id of ["deep", "agent", "status"]) $(id).addEventListener("change", search);
  for (const [id, key] of [["expand", "E"], ["collapse", "C"], ["reset", "0"], ["next", "n"], ["prev", "p"]]) $(id).addEventListener("click", KEYS[key]);
  $("help").addEventListener("click", () => { $("keys").hidden = !$("keys").hidden; $("help").setAttribute("aria-expanded", String(!$("keys").hidden)); });
  window.addEventListener("resize", () => { drawOverview(); draw(); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawOverview);
  window.addEventListener("beforeprint", () => {
    printing = true; drawNow();
    $("printed").textContent = rows.length > PRINTED ? `· the first ${count(PRINTED)} of ${count(rows.length)} rows are printed` : "";
  });
  window.addEventListener("afterprint", () => { printing = false; $("printed").textContent = ""; drawNow(); });

  // ---- the address tells what is shown, so that it can be sent -------------------------------------------------------------------
  function remember() {
    const now = new URLSearchParams();
    if ($("q").value) now.set("q", $("q").value);
    if ($("deep").checked) now.set("deep", "1");
    if ($("agent").value) now.set("agent", data.agents[Number($("agent").value)]);
    if ($("status").value) now.set("status", $("status").value);
    if (opened >= 0) now.set("span", col.id[opened]);
    try { history.replaceState(null, "", `#${now}`); } catch { /* a page in a frame without an address: nothing to remember */ }
  }

  function recall() {
    const told = new URLSearchParams(location.hash.slice(1));
    $("q").value = told.get("q") || "";
    $("deep").checked = told.get("deep") === "1";
    const agent = data.agents.indexOf(told.get("agent"));
    $("agent").value = agent >= 0 ? String(agent) : "";
    $("status").value = ["error", "success", "critical"].includes(told.get("status")) ? told.get("status") : "";
    const i = told.get("span") ? col.id.indexOf(told.get("span")) : -1;
    search();
    if (i >= 0) choose(i, true);
  }

  data.agents.map((name, at) => [name, at]).sort(([a], [b]) => a < b ? -1 : 1).forEach(([name, at]) => { const option = make("option", "", name); option.value = String(at); $("agent").append(option); });
  if (!col.cost.some((each) => each >= 0) && !col.tokens_in.some((each) => each >= 0)) document.querySelector(".left").classList.add("plain");
  $("app").hidden = false;
  foldToFit(400);
  drawOverview();
  recall();
  window.addEventListener("hashchange", recall);
})();
