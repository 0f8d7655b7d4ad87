"use strict";
// Asks the server that sent this page, and nobody else. What it says goes in as text: there is no other way in.
(() => {
  const byId = (id) => document.getElementById(id);
  const h = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) typeof value === "function" ? node.addEventListener(name, value) : node.setAttribute(name, value);
    node.append(...children.flat());
    return node;
  };
  const show = (id, ...children) => byId(id).replaceChildren(...children.flat());
  const percent = (value) => `${(100 * value).toFixed(1)} %`;
  const meter = (value) => {
    const bar = h("i");
    bar.style.setProperty("width", percent(value));
    return h("span", { class: "meter" }, bar);
  };
  const sign = (liked) => h("span", { class: liked ? "like" : "dislike", role: "img", "aria-label": liked ? "liked" : "disliked" }, liked ? "▲" : "▼");

  let asked = 0; // an answer that a later question has overtaken is dropped
  const ask = async (path, body) => {
    const headers = { "Content-Type": "application/json" };
    if (byId("token").value) headers.Authorization = `Bearer ${byId("token").value}`;
    const reply = await fetch(path, body === undefined ? { headers } : { method: "POST", headers, body: JSON.stringify(body) });
    if (reply.status === 401) byId("locked").hidden = false;
    const answer = await reply.json().catch(() => ({}));
    if (reply.ok) return answer;
    throw new Error(typeof answer.detail === "string" ? answer.detail : `status ${reply.status}`);
  };
  const complain = (error) => { byId("said").textContent = error.message; };

  const history = [];
  let somebody = null;
  const recommend = async (who, name) => {
    const mine = ++asked;
    somebody = who;
    byId("said").textContent = "…";
    const items = await ask("/recommend", { ...who, k: 20 });
    if (mine !== asked) return;
    byId("said").textContent = `${items.length} items for ${name}`;
    show("ranked", items.map((item, place) => h("li", {}, h("button", { type: "button", click: () => explain(item).catch(complain) },
      h("span", { class: "rank" }, String(place + 1)), h("bdi", {}, item.title), h("span", {}, percent(item.probability)), meter(item.probability)))));
    show("target", h("p", { class: "hint" }, "Choose an item to see why."));
  };
  const explain = async (item) => {
    const mine = ++asked;
    show("target", h("p", { class: "hint" }, "…"));
    const why = await ask("/explain", { ...somebody, item: item.item_id });
    if (mine !== asked) return;
    const sources = (claim) => [claim.target ? "in the item" : "", claim.liked ? `liked ${claim.liked}` : "", claim.disliked ? `disliked ${claim.disliked}` : ""].filter(Boolean).join(", ") || "nowhere";
    show("target", h("h3", {}, why.title), h("p", { class: "words" }, why.keywords.join(" · ")),
      h("dl", { class: "numbers" }, [["probability", why.probability], ...Object.entries(why.weights)].map(([name, value]) =>
        h("div", {}, h("dt", {}, name.replace("_", " ")), h("dd", {}, percent(value)), meter(value)))),
      h("h4", {}, "Reason"), h("blockquote", {}, why.reason || "The model wrote none."),
      h("ul", { class: "claims" }, why.evidence.map((claim) => h("li", {}, h("span", {}, claim.true ? "✓" : claim.true_by_meaning ? "≈" : "✗"),
        h("span", { class: `is-${claim.standing}` }, `${claim.name}: ${claim.says}${claim.of ? ` (${claim.of})` : ""} – shown: ${sources(claim)}${claim.synonyms ? ` ≈ ${claim.synonyms}` : ""}`)))),
      h("h4", {}, "History it was judged by"),
      h("ul", { class: "history" }, why.history.map((shown) => h("li", {}, sign(shown.liked), h("bdi", {}, shown.title)))));
  };

  const search = (box, path, list, row) => {
    let typed = 0;
    const run = async () => {
      const mine = ++typed;
      const text = byId(box).value.trim();
      const listed = text || box === "query" ? await ask(`${path}?text=${encodeURIComponent(text)}`) : [];
      if (mine === typed) show(list, listed.map(row));
    };
    byId(box).addEventListener("input", () => run().catch(complain));
    return run;
  };
  const users = search("query", "/users", "list", (user) => h("li", {},
    h("button", { type: "button", click: () => recommend({ user: user.user_id }, user.user_id).catch(complain) },
      h("bdi", {}, user.user_id), h("small", {}, `${user.interactions} interactions`))));
  const listHistory = () => show("history", history.map((pair, place) => h("li", {},
    h("button", { type: "button", "aria-label": "like or dislike", click: () => { pair.liked = !pair.liked; changed(); } }, sign(pair.liked)),
    h("span", {}, h("bdi", {}, pair.title), " ", h("button", { type: "button", "aria-label": `remove ${pair.title}`, click: () => { history.splice(place, 1); changed(); } }, "×")))));
  const changed = () => {
    listHistory();
    recommend({ history: history.map(({ item, liked }) => ({ item, liked })) }, "you").catch(complain);
  };
  search("title", "/items", "titles", (item) => h("li", {}, h("button", { type: "button", click: () => {
    if (!history.some((pair) => pair.item === item.item_id)) history.push({ item: item.item_id, title: item.title, liked: true });
    byId("title").value = "";
    show("titles");
    changed();
  } }, h("span", {}, "+"), h("bdi", {}, item.title), h("small", {}, item.year === null ? "" : String(item.year)))));
  byId("token").addEventListener("change", () => users().catch(complain));
  users().catch(complain);
})();
