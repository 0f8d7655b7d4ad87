"use strict";
// Draws the page from the JSON beside this script. Everything goes in as text: there is no other way in.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";

  /** An element with attributes and children; children that are not nodes become text, null ones nothing. */
  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null) node.setAttribute(name, value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== "")
      .map((child) => child instanceof Node ? child : document.createTextNode(child)));
    return node;
  };
  const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
  const styled = (node, property, value) => { node.style.setProperty(property, value); return node; };
  const show = (place, ...children) => place.replaceChildren(...children.flat().filter((child) => child !== null));

  const figure = (value, digits = 4) => value === null || value === undefined ? "–" : value.toFixed(digits);
  const percent = (value) => `${(100 * value).toFixed(0)} %`;
  const count = (value) => value.toLocaleString("en");
  const colour = (number) => `var(--c${number % 8})`;
  const region = (label, table) => h("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, table);

  document.querySelectorAll("[hidden]").forEach((node) => { node.hidden = false; }); // what nothing but this script fills

  // --- Curves --------------------------------------------------------------------------------------------------
  const DASHES = [null, "7 3", "2 3", "9 3 2 3"];
  /** A square chart of series {name, points: [[x, y, note]]}; pointer or arrow keys move a cursor that is read out. */
  const chart = (place, title, xLabel, yLabel, series) => {
    const SIZE = 400, LEFT = 44, TOP = 10, SIDE = 340;
    const x = (value) => LEFT + SIDE * value, y = (value) => TOP + SIDE * (1 - value);
    const marks = [0, 0.25, 0.5, 0.75, 1];
    const cursor = s("circle", { class: "cursor", r: 6, visibility: "hidden" });
    const drawing = s("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", tabindex: "0", "aria-label": `${title}. Arrow keys read it out.` },
      marks.map((at) => s("path", { class: "grid", d: `M${x(0)},${y(at)}H${x(1)}M${x(at)},${y(0)}V${y(1)}` })),
      marks.map((at) => [s("text", { x: LEFT - 6, y: y(at) + 4, "text-anchor": "end" }, at), s("text", { x: x(at), y: y(0) + 16, "text-anchor": "middle" }, at)]).flat(),
      s("path", { class: "chance", d: `M${x(0)},${y(0)}L${x(1)},${y(1)}` }),
      [...series.keys()].reverse().map((number) => {
        const line = series[number].points.map((point) => `${x(point[0])},${y(point[1])}`).join("L");
        return styled(s("path", { class: number ? "curve" : "curve lead", d: `M${line}`, "stroke-dasharray": DASHES[number % 4] }), "stroke", colour(number));
      }),
      s("text", { x: x(0.5), y: SIZE - 6, "text-anchor": "middle" }, xLabel),
      s("text", { transform: `translate(11 ${y(0.5)}) rotate(-90)`, "text-anchor": "middle" }, yLabel), cursor);
    const readout = h("p", { class: "readout", "aria-live": "polite" }, "");
    const at = { series: 0, point: -1 };
    const move = (number, point) => {
      at.series = number; at.point = point;
      const [px, py, note] = series[number].points[point];
      cursor.setAttribute("cx", x(px)); cursor.setAttribute("cy", y(py)); cursor.setAttribute("visibility", "visible");
      styled(cursor, "fill", colour(number));
      readout.textContent = `${series[number].name}: ${xLabel} ${figure(px, 3)}, ${yLabel} ${figure(py, 3)}${note || ""}`;
    };
    const point = (event) => {
      const box = drawing.getBoundingClientRect(), scale = SIZE / box.width;
      const px = (event.clientX - box.left) * scale, py = (event.clientY - box.top) * scale;
      let best = null;
      series.forEach((one, number) => one.points.forEach((point, place) => {
        const far = (x(point[0]) - px) ** 2 + (y(point[1]) - py) ** 2;
        if (!best || far < best.far) best = { far, number, place };
      }));
      if (best) move(best.number, best.place);
    };
    drawing.addEventListener("pointermove", point);
    drawing.addEventListener("pointerdown", point);
    drawing.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!step || !series.length) return;
      event.preventDefault();
      const number = (at.series + step[0] + series.length) % series.length;
      move(number, Math.min(Math.max(at.point + step[1], 0), series[number].points.length - 1));
    });
    show(place, h("figcaption", {}, title), drawing, readout,
      h("ul", { class: "keys" }, series.map((one, number) => h("li", {},
        styled(styled(h("span", { class: "line", "aria-hidden": "true" }), "border-top-color", colour(number)), "border-top-style",
          ["solid", "dashed", "dotted", "dashed"][number % 4]), one.label))));
  };
  chart(byId("roc"), "ROC", "false positive rate", "true positive rate",
    data.roc.map((one) => ({ name: one.name, points: one.points, label: `${one.name}, AUC ${figure(one.auc, 3)}` })));
  chart(byId("calibration"), "Calibration", "predicted probability", "share liked",
    [{ name: "ThinkRec", label: "ThinkRec; the dotted line is perfect",
      points: data.calibration.map(([predicted, observed, rows]) => [predicted, observed, `, ${count(rows)} rows`]) }]);

  // --- Experts -------------------------------------------------------------------------------------------------
  const adapters = data.gate.adapters;
  const adapterColour = (number) => number ? colour(number - 1) : "var(--c6)";
  const groupName = (group) => adapters.length === 1 ? "everyone" : group < 0 ? "not seen in train" : `group ${group + 1}`;
  const stack = (weights) => h("div", { class: "stack", role: "img", "aria-label": weights.map((weight, number) => `${adapters[number]} ${percent(weight)}`).join(", ") },
    weights.map((weight, number) => weight < 0.004 ? null : styled(styled(h("span", { title: `${adapters[number]} ${percent(weight)}` },
      weight >= 0.12 ? percent(weight) : ""), "flex", `${weight} 0 0`), "background", adapterColour(number))));
  const adapterKeys = () => h("ul", { class: "keys" }, adapters.map((name, number) => h("li", {},
    styled(h("span", { class: "swatch", "aria-hidden": "true" }), "background", adapterColour(number)), name)));
  const cases = Object.entries(data.gate.cases).filter(([, rows]) => rows);
  const routed = cases.reduce((sum, [, rows]) => sum + rows, 0);
  show(byId("gate"), adapterKeys(), region("Weights by group", h("table", {},
    h("caption", {}, "Weights by user group"),
    h("thead", {}, h("tr", {}, ["users of", "test users", "test rows", "AUC"].map((name) => h("th", { scope: "col" }, name)),
      h("th", { scope: "col" }, "mean weights"), adapters.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", {}, data.gate.groups.map((group) => h("tr", {}, h("th", { scope: "row" }, groupName(group.group)),
      h("td", {}, count(group.users)), h("td", {}, count(group.rows)), h("td", {}, figure(group.auc)), h("td", {}, stack(group.weights)),
      group.weights.map((weight) => h("td", {}, figure(weight, 3)))))))),
    h("p", { class: "hint" }, `By the paper’s rule, ${cases.map(([name, rows]) => `${name} would score ${percent(rows / routed)} of the rows`).join(", ")}.`));

  // --- Users ---------------------------------------------------------------------------------------------------
  const [shownUsers, allUsers] = data.included.users, [shownRows, allRows] = data.included.rows, [shownReasons, allReasons] = data.included.reasons;
  byId("included").textContent = `${count(shownUsers)} of ${count(allUsers)} test users are in this file, with ${count(shownRows)} of ${count(allRows)} ` +
    `test interactions and ${count(shownReasons)} of ${count(allReasons)} reasons. Users with a reason come first, then the others, as many as the file has ` +
    `room for; of one user, targets with a reason first, then the best ranked.`;
  const STANDINGS = {
    true: ["✓", "as it was shown"],
    synonym: ["≈", `true by meaning alone: a synonym was shown, by ${data.thesaurus}`],
    untrue: ["✗", "untrue: shown otherwise"],
    unsupported: ["✗", "no liking or dislike: of fewer than two titles, or against half of them or more"],
    no_taste: ["✗", "no taste: a place, a name or a year"],
    ungrounded: ["?", "ungrounded: never shown"],
  };
  show(byId("legend"), h("h4", {}, "Legend"), h("ul", { class: "keys" },
    h("li", {}, h("span", { class: "like" }, "▲"), " liked"), h("li", {}, h("span", { class: "dislike" }, "▼"), " disliked"),
    Object.entries(STANDINGS).map(([kind, [sign, meaning]]) => h("li", {}, h("mark", { class: kind }, "claim", h("sup", {}, sign)), ` ${meaning}`)),
    h("li", {}, h("span", { class: "tag is-true" }, "1"), " evidence that claim 1 cites"), h("li", {}, "✎ has a written reason")));

  const MOST = 100;
  const bdi = (text) => h("bdi", {}, text);
  const verdict = (label) => h("span", { class: label ? "like" : "dislike" }, label ? "▲ liked" : "▼ disliked");
  const sign = (label) => h("span", { class: label ? "like" : "dislike", role: "img", "aria-label": label ? "liked" : "disliked" }, label ? "▲" : "▼");
  const titled = ([title, year]) => [bdi(title), year === null ? "" : ` (${year})`];
  const reasonsOf = (user) => user.targets.filter((target) => target.text).length;
  const fold = (text) => text.toLowerCase();
  const titles = data.items.map((item) => fold(item[0]));

  const search = () => {
    const query = fold(byId("query").value.trim());
    const named = new Set(titles.flatMap((title, place) => query && title.includes(query) ? [place] : []));
    return data.users.flatMap((user, place) => {
      if (byId("explained").checked && !reasonsOf(user)) return [];
      if (!query || fold(user.id).includes(query)) return [[place, ""]];
      const hit = user.targets.find((target) => named.has(target.item)) ? "target" : user.timeline.some(([item]) => named.has(item)) ? "history" : "";
      return hit ? [[place, hit]] : [];
    });
  };
  let chosen = -1;
  const list = () => {
    const found = search();
    byId("found").textContent = found.length > MOST ? `${count(found.length)} users; the first ${MOST} are listed`
      : `${count(found.length)} ${found.length === 1 ? "user" : "users"}`;
    show(byId("list"), found.slice(0, MOST).map(([place, hit]) => {
      const user = data.users[place], written = reasonsOf(user);
      const button = h("button", { type: "button", "data-user": place, "aria-current": String(place === chosen) },
        bdi(user.id), h("small", {}, `${hit ? `in ${hit} · ` : ""}${user.rows} ${user.rows === 1 ? "row" : "rows"}${written ? ` · ✎ ${written}` : ""}`));
      button.addEventListener("click", () => { choose(place); setAddress(user); reveal(byId("user")); });
      return h("li", {}, button);
    }));
  };
  const current = (place, attribute, value) => place.querySelectorAll("button").forEach((button) =>
    button.setAttribute("aria-current", String(button.getAttribute(attribute) === String(value))));
  /** Up and down arrows move through the buttons of a list. */
  const arrows = (place) => place.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...place.querySelectorAll("button")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (next) { event.preventDefault(); next.focus(); }
  });

  /** Where the panes stand below each other, go to the one that has changed. */
  const reveal = (place) => { if (matchMedia("(max-width: 44rem)").matches) place.scrollIntoView(); };

  /** The address of a user and, if there is one, of a target: what can be sent to somebody. */
  const address = (user, target) => `#user/${encodeURIComponent(user.id)}${target ? `/item/${encodeURIComponent(data.items[target.item][3])}` : ""}`;
  const setAddress = (user, target) => history.replaceState(null, "", address(user, target));
  /** Open what the address names; whether it names somebody. */
  const follow = () => {
    const [kind, id, , item] = location.hash.slice(1).split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
    if (kind !== "user") return false;
    const place = data.users.findIndex((user) => user.id === id);
    if (place < 0) {
      byId("found").textContent = `The user ${id} is not in this file.`;
    } else {
      choose(place, data.users[place].targets.findIndex((target) => data.items[target.item][3] === item));
    }
    byId("users").scrollIntoView();
    return place >= 0;
  };

  const choose = (place, wanted = -1) => {
    chosen = place;
    current(byId("list"), "data-user", place);
    const user = data.users[place];
    const picks = h("ul", { class: "pick", "aria-label": "Ranked targets" }, user.targets.map((target, number) => {
      const button = h("button", { type: "button", "data-target": number },
        h("span", { class: "rank" }, target.rank), h("span", {}, titled(data.items[target.item]), target.text ? h("span", { role: "img", "aria-label": ", has a reason" }, " ✎") : null),
        h("span", {}, figure(target.p, 2), " ", sign(target.label)),
        h("span", { class: "meter", "aria-hidden": "true" }, styled(h("i"), "width", `${100 * target.p}%`)));
      button.addEventListener("click", () => { look(user, number); setAddress(user, target); reveal(byId("target")); });
      return h("li", {}, button);
    }));
    arrows(picks);
    const lists = Object.entries(user.lists).map(([name, marked]) => h("details", {},
      h("summary", {}, `${name}: ${marked.filter(([, label]) => label === 1).length} of its first ${marked.length} liked later`),
      h("ol", { class: "history" }, marked.map(([place, label]) => h("li", {}, label === null ? h("span") : sign(label), h("span", {}, titled(data.items[place])))))));
    const cut = user.targets.length < user.rows ? `; ${user.targets.length} of ${user.rows} are here` : "";
    show(byId("user"), h("h3", {}, "User ", bdi(user.id)),
      h("p", { class: "hint" }, `${groupName(user.group)} · test targets ranked by probability${cut}. The sign is what the user said afterwards.`), picks,
      lists.length ? h("h4", {}, "Ranked out of all items") : null, lists);
    const first = wanted >= 0 ? wanted : Math.max(0, user.targets.findIndex((target) => target.text));
    picks.scrollTop = picks.children[first].offsetTop - picks.clientHeight / 2;
    look(user, first);
  };

  const claimsList = (target) => h("ol", { class: "claims", "aria-label": "Claims" }, target.claims.map((claim, number) => {
    const seen = claim.liked + claim.disliked;
    const facts = claim.is === "ungrounded" ? "" : ` · shown: ${claim.liked} liked, ${claim.disliked} disliked${claim.target ? ", in the target" : seen ? ", not in the target" : ""}`;
    return h("li", {}, h("span", { class: `is-${claim.is}`, role: "img", "aria-label": STANDINGS[claim.is][1] }, STANDINGS[claim.is][0]),
      h("span", {}, `${number + 1}. `, bdi(claim.says), h("small", { class: "words" }, claim.is === "true" ? facts : ` · ${STANDINGS[claim.is][1]}${facts}`)));
  }));

  const look = (user, number) => {
    current(byId("user"), "data-target", number);
    const target = user.targets[number], item = data.items[target.item];
    byId("said").textContent = `${item[0]}: probability ${figure(target.p, 2)}, rank ${target.rank} of ${user.rows}, ${target.label ? "liked" : "disliked"}`;
    const seen = user.timeline.slice(...target.history);
    const citing = seen.map((_, place) => (target.claims || []).flatMap((claim, index) => claim.places.includes(place) ? [[index + 1, claim.is]] : []));
    const reason = !target.text ? h("p", { class: "hint" }, "No reason was written for this target.") : [
      h("blockquote", {}, target.text.map(([piece, claim]) => claim < 0 ? piece
        : h("mark", { class: target.claims[claim].is, title: STANDINGS[target.claims[claim].is][1] }, piece, h("sup", {}, `${claim + 1}${STANDINGS[target.claims[claim].is][0]}`)))),
      target.agrees ? null : h("p", { class: "note" }, target.verdict === null ? "The text gives no verdict that can be read."
        : target.verdict === target.p > 0.5 ? "The text argues itself into the other verdict than the one it begins with." : "The text’s verdict is not that of the score."),
      target.claims.length ? claimsList(target) : h("p", { class: "hint" }, "The text claims nothing that could be looked up."),
      target.teacher ? h("details", {}, h("summary", {}, "What the teacher wrote of it"), h("blockquote", {}, target.teacher)) : null];
    show(byId("target"), h("h3", {}, titled(item)), h("p", { class: "words" }, h("code", {}, item[3]), " · ", item[2].join(" · "), " · ",
      h("a", { href: address(user, target) }, "link to this")),
      h("dl", { class: "numbers" }, h("div", {}, h("dt", {}, "probability"), h("dd", {}, figure(target.p, 3))),
        h("div", {}, h("dt", {}, "rank"), h("dd", {}, `${target.rank} of ${user.rows}`)), h("div", {}, h("dt", {}, "the user"), h("dd", {}, verdict(target.label))),
        target.true_p === undefined ? null : h("div", {}, h("dt", {}, "true probability"), h("dd", {}, figure(target.true_p, 3))),
        target.true_reason === undefined ? null : h("div", {}, h("dt", {}, "true reason"), h("dd", {}, bdi(target.true_reason.replace(":", ": "))))),
      h("h4", {}, "Reason"), reason, h("h4", {}, "Expert weights"), stack(target.weights),
      h("ul", { class: "keys weights" }, target.weights.map((weight, place) => h("li", {}, styled(h("span", { class: "swatch", "aria-hidden": "true" }), "background", adapterColour(place)), `${adapters[place]} ${figure(weight, 3)}`))),
      h("h4", {}, `History shown, oldest first (${seen.length})`),
      seen.length ? h("ul", { class: "history" }, seen.map(([place, label], index) => h("li", { class: citing[index].length ? "cited" : null }, sign(label),
        h("span", {}, titled(data.items[place]), citing[index].map(([claim, is]) => h("span", { class: `tag is-${is}`, title: `cited by claim ${claim}` }, claim)),
          h("br"), h("span", { class: "words" }, data.items[place][2].join(" · ")))))) : h("p", { class: "hint" }, "Nothing: this is among the user’s first interactions."));
  };

  byId("query").addEventListener("input", list);
  byId("explained").addEventListener("change", list);
  byId("query").addEventListener("keydown", (event) => {
    const first = byId("list").querySelector("button");
    if (first && event.key === "ArrowDown") { event.preventDefault(); first.focus(); }
    if (first && event.key === "Enter") { event.preventDefault(); first.click(); }
  });
  arrows(byId("list"));
  list();
  window.addEventListener("hashchange", follow);
  if (data.users.length && !follow()) choose(0);
})();
