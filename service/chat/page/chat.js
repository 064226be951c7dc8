// The browser's side of chat.v1. Three parts, top to bottom: Line is the websocket and its reconnects; Room is what this
// tab knows of a room, and what it has sent and not seen acknowledged; the rest shows both.
// Whatever people wrote goes into the page as text nodes only; the policy sent with the page forbids anything else.

const PROTOCOL = "chat.v1";
const TITLE = document.title; // as the page was sent
const MAX_TEXT = 4000; // code points
const MAX_ROOMS = 32;
const IS_ROOM = /^[a-z0-9-]{1,64}$/;
const MAX_SHOWN = 400; // messages kept in the page of who reads the last ones, and drawn below who reads older ones
const PAGE = 50;
const OVERTAKEN = "overtaken"; // by a new epoch, or by what came in meanwhile: an answer that is of no use
const CONNECT_PATIENCE = 8_000; // ms
const PAGE_PATIENCE = 30_000; // ms; many long messages over a slow line
const ANSWER_PATIENCE = 10_000; // ms; the server answers each send within 3 s
const SILENCE = 2.5; // heartbeats without a frame
const CALM = 2_500; // ms after which a server that was sent too much counts anew
const BACKOFF = [400, 15_000]; // ms, first and longest
const PING_PATIENCE = 4_000; // ms
const ENDS_COMPOSITION = 229; // the key code that is all Safari says: the composition is over for it when the key is told

// What a divider says, between what was fetched and what comes now.
const GONE = "You were away for longer than messages are kept: some that came in between are gone.";
const RESTORED = "The server's messages were restored from a copy: this is what it has now.";

const $ = (id) => document.getElementById(id);
const between = (low, high) => low + Math.random() * (high - low);
const growing = (failures) => Math.min(BACKOFF[1], BACKOFF[0] * 2 ** failures);

// To one server a browser opens six connections at a time: what waited for ever would hold one for ever.
const ask = (path, options = {}, patience = CONNECT_PATIENCE) => fetch(path, { signal: AbortSignal.timeout(patience), ...options });

// crypto.randomUUID is there on https and localhost only.
const makeId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (n) => n.toString(16).padStart(2, "0")).join("");

// ---- what outlives the page

// Of the same kind as `otherwise`: what is there may be another page's at this address, or another version's.
function recall(store, key, otherwise) {
  try {
    const kept = JSON.parse(window[store].getItem(`chat.${key}`)); // where storage is off, it may not even be named
    return typeof kept === typeof otherwise && Array.isArray(kept) === Array.isArray(otherwise) ? kept : otherwise;
  } catch {
    return otherwise; // storage is off, or holds something else
  }
}

function keep(store, key, value) {
  try {
    window[store].setItem(`chat.${key}`, JSON.stringify(value));
  } catch {
    // storage is off or full: the page works, and forgets
  }
}

// ---- the line: one websocket, made anew until somebody cuts it

class Line {
  constructor({ name, onFrame, onState, onWire }) {
    Object.assign(this, { name, onFrame, onState, onWire });
    this.state = "connecting"; // connecting, open, draining, offline, cut, stranger
    this.reason = "";
    this.retryAt = 0;
    this.heartbeat = 20_000;
    this.attempt = 0;
    this.made = 0;
    this.bye = null;
  }

  // Whoever has to sign in first is not let in, and the browser would not say why: so it is asked before.
  async connect() {
    const asked = this.asked = {};
    const isOver = () => asked !== this.asked; // somebody else began, or cut the line
    const answered = await askWho(isOver);
    if (isOver()) return;
    if (answered && (who.signed_in || !who.identity)) return this.dial();
    this.forget();
    this.greeted = false;
    this.bye = null;
    if (answered) this.become("stranger");
    else this.lost(0); // as whom it would come in is not known
  }

  dial() {
    this.forget();
    const address = new URL(`ws?name=${encodeURIComponent(this.name)}`, location); // beside the page, as all is
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address, PROTOCOL);
    this.socket = socket;
    this.bye = null;
    this.greeted = false;
    socket.onmessage = (event) => this.receive(JSON.parse(event.data));
    socket.onclose = (event) => this.lost(event.code);
    this.timer = setTimeout(() => this.lost(0), CONNECT_PATIENCE);
    if (this.state !== "draining") this.become("connecting");
  }

  send(frame) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    this.onWire("out", frame);
    return true;
  }

  receive(frame) {
    this.onWire("in", frame);
    this.listen();
    if (frame.type === "hello") {
      this.greeted = true;
      this.made += 1;
      this.heartbeat = frame.heartbeat_ms;
      this.maxBytes = frame.max_bytes;
      this.listen();
      this.confirm();
    } else if (frame.type === "ping") {
      this.send({ type: "pong", t: frame.t });
    } else if (frame.type === "bye") {
      this.bye = frame;
      if (frame.reason === "restart") this.become("draining");
    }
    this.onFrame(frame);
  }

  // Somebody else may have signed in between the answer about who is asking and the upgrade, in another tab: asked again,
  // it is the same, or nothing is sent on this line.
  async confirm() {
    const [socket, { subject }] = [this.socket, who];
    const isOver = () => socket !== this.socket;
    const answered = !who.identity || (await askWho(isOver));
    if (isOver() || this.bye) return;
    if (!answered) this.lost(0);
    else if (subject === who.subject) this.become("open");
    else this.connect();
  }

  // A browser shows no control frames, so a quiet line is asked: one ping a heartbeat, and given up after 2.5 of them.
  listen(patience = this.heartbeat * (SILENCE - 1), asked = false) {
    clearTimeout(this.timer);
    this.timer = setTimeout(
      () => {
        if (asked) return this.lost(0);
        this.send({ type: "ping", t: Date.now() });
        this.listen(patience, true);
      },
      asked ? patience : this.heartbeat,
    );
  }

  probe() {
    if (this.state === "open" && this.send({ type: "ping", t: Date.now() })) this.listen(PING_PATIENCE, true);
    else if (["offline", "draining", "stranger"].includes(this.state)) this.connect();
  }

  lost(code) {
    if (!this.greeted) this.investigate();
    this.forget();
    const grown = growing(this.attempt++); // until a join has succeeded: a server may greet, and let nobody join
    const [low, high] = this.bye?.reconnect_after_ms ?? (code === 4429 ? [10_000, 30_000] : [grown / 2, grown]);
    const wait = between(low, high);
    this.retryAt = Date.now() + wait;
    this.onWire("event", `closed ${code || "without an answer"}`);
    this.timer = setTimeout(() => this.connect(), wait);
    if (this.bye?.reason !== "restart" && code !== 1012) {
      this.reason = this.bye ? `The server let you go: ${this.bye.reason}.` : this.reason;
      this.become("offline");
    } else this.become("draining");
  }

  // Why no conversation came about is not told to a page, so it asks by HTTP what it can be told.
  async investigate() {
    const begun = this.begun = {};
    let reason = "The server does not answer.";
    try {
      const ready = await ask("readyz", { cache: "no-store" });
      const tried = await ask("ws", { method: "POST" }); // it tells the page's origin, as an upgrade does
      const stranger = tried.status === 403 && (await tried.json()).detail;
      const unknown = who.trouble && `cannot say who you are: ${who.trouble}`;
      const refused = (stranger && `refuses this page: ${stranger}`) || unknown || "refuses this name, or takes nobody more just now";
      reason = ready.ok ? `The server answers, and ${refused}.` : "The server is there, and not ready.";
    } catch {
      // no answer, or none in time
    }
    if (begun !== this.begun) return; // of an earlier try, or no longer so
    this.reason = reason;
    this.onState(this.state);
  }

  cut() {
    this.forget();
    this.reason = "You cut the line.";
    this.onWire("event", "cut");
    this.become("cut");
  }

  rename(name) {
    this.name = name;
    if (this.state !== "cut") this.connect();
  }

  forget() {
    this.asked = null;
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    if (!socket) return;
    socket.onmessage = socket.onclose = null; // what a dead socket still says is about a line that is gone
    socket.close();
  }

  become(state) {
    if (state === "open") this.reason = "";
    if (["open", "cut", "stranger"].includes(state)) this.begun = null;
    const before = this.state;
    this.state = state;
    this.onState(before);
  }
}

// ---- a room: where this tab stands in it, and what it has sent

class Room {
  constructor(name) {
    this.name = name;
    this.epoch = null;
    this.last = null; // the seq up to which nothing is missing; null is before the first join
    this.messages = []; // ascending by seq, without a hole
    this.pending = recall("sessionStorage", `pending.${name}`, []).filter(isKept).map((one) => ({ ...one, tick: one.reason ? "failed" : "kept" }));
    this.joined = false;
    this.refused = 0; // joins since the last that succeeded
    this.beginning = false; // the oldest message kept by the server is shown
    this.unread = 0;
    this.count = null;
    this.caughtUp = 0;
  }

  get waiting() {
    return this.pending.filter(isUnanswered).length;
  }

  get unstored() {
    return this.pending.filter(isUnstored).length;
  }

  join() {
    this.joined = false;
    this.ref = makeId();
    const since = this.last === null ? {} : { since: { epoch: this.epoch, seq: this.last } };
    line.send({ type: "join", room: this.name, ref: this.ref, ...since });
  }

  onJoined(frame) {
    const first = this.last === null;
    const restored = !first && frame.epoch !== this.epoch;
    this.joined = true;
    this.lostSight = !first && (frame.gap || restored);
    this.caughtUp = first || this.lostSight ? 0 : frame.head - this.last;
    this.epoch = frame.epoch;
    this.last = frame.from;
    if (first || this.lostSight) {
      this.messages = [];
      this.beginning = frame.from === 0;
      this.divider = this.lostSight ? { after: frame.from, node: element("li", { className: "note" }, restored ? RESTORED : GONE) } : null;
      for (const one of this.pending) if (one.tick === "acked") one.tick = "kept"; // it may not have lasted
      if (frame.from > 0) this.loadEarlier();
    }
    this.flush();
  }

  // What was sent and not answered is sent again: its id makes that safe.
  onLost() {
    this.joined = false;
    this.count = null; // nobody says who is here
    for (const one of this.pending) {
      clearTimeout(one.timer);
      if (one.tick === "sent") one.tick = "kept";
    }
    showPending(this);
  }

  // One at a time: a repeat then never comes behind what was written after it.
  flush() {
    const next = this.pending.find((one) => isUnanswered(one) && isOurs(one));
    if (!this.joined || !next || next.tick === "sent" || this.paused) return;
    const frame = { type: "send", room: this.name, id: next.id, text: next.text };
    const size = new TextEncoder().encode(JSON.stringify(frame)).length;
    if (size > line.maxBytes) { // the server would close, again and again
      Object.assign(next, { tick: "failed", reason: `it makes a frame of ${size} bytes; the server takes ${line.maxBytes}` });
      this.changed();
      return this.flush();
    }
    if (!line.send(frame)) return;
    next.tick = "sent";
    next.timer = setTimeout(() => next.tick === "sent" && line.lost(0), ANSWER_PATIENCE);
    showPending(this);
  }

  write(text) {
    const id = makeId();
    remember(id);
    this.pending.push({ id, text, at: new Date().toISOString(), tick: "kept", subject: who.subject, author: who.name });
    this.changed();
    this.flush();
  }

  // Nobody is in it any more: what it waited for is not to send anything.
  giveUp() {
    this.onLost();
    clearTimeout(this.paused);
  }

  answered(id) {
    const one = this.pending.find((candidate) => candidate.id === id);
    if (one) clearTimeout(one.timer);
    return one;
  }

  onAck(frame) {
    const one = this.answered(frame.id);
    if (!one) return;
    Object.assign(one, { tick: "acked", seq: frame.seq });
    if (frame.seq <= (this.last ?? 0) && frame.epoch === this.epoch) this.drop(one); // it is among the messages already
    this.changed();
    this.flush();
  }

  onError(frame) {
    const one = this.answered(frame.id);
    if (!one) return;
    if (frame.code === "not_joined") {
      one.tick = "kept";
      this.join();
    } else if (frame.retryable) {
      one.tick = "kept";
      this.trouble = frame.code === "unavailable" ? frame.message.split(";")[0] : "";
      this.pause(Math.max(frame.retry_after_ms ?? 1000, frame.code === "rate_limited" ? CALM : 0));
    } else Object.assign(one, { tick: "failed", reason: frame.message });
    this.changed();
    this.flush();
  }

  pause(ms) {
    clearTimeout(this.paused);
    this.paused = setTimeout(() => {
      this.paused = null;
      this.flush();
    }, between(ms, 1.5 * ms));
  }

  onMessage(message) {
    if (message.epoch !== this.epoch || message.seq <= this.last) return;
    if (message.seq !== this.last + 1) return this.join(); // never seen; asking again mends it whatever the cause
    this.last = message.seq;
    this.trouble = "";
    this.messages.push(message);
    if (this !== current) this.forgetEarly();
    if ((this !== current || document.hidden) && !isMine(message)) this.unread += 1;
    const one = this.pending.find((candidate) => candidate.id === message.id);
    if (one) this.drop(one);
    if (one && this === current) showNews(); // in its place
    else showSoon();
  }

  forgetEarly() {
    if (this.messages.length <= MAX_SHOWN + PAGE) return;
    this.messages.splice(0, this.messages.length - MAX_SHOWN);
    this.beginning = false;
  }

  drop(one) {
    clearTimeout(one.timer);
    this.pending.splice(this.pending.indexOf(one), 1);
    this.changed();
    this.flush();
  }

  changed() {
    const unstored = this.pending.filter(isUnstored);
    keep("sessionStorage", `pending.${this.name}`, unstored.map(({ id, text, at, subject, author, reason }) => ({ id, text, at, subject, author, reason })));
    showPending(this);
  }

  async loadEarlier(tell = () => {}) {
    if (this.loading) return;
    this.loading = true;
    const before = this.messages[0]?.seq ?? this.last + 1;
    try {
      const reply = await ask(`api/rooms/${this.name}/messages?before=${before}&limit=${PAGE}`, {}, PAGE_PATIENCE);
      if (!reply.ok) throw new Error("refused", { cause: reply.status });
      const page = await reply.json();
      if (page.epoch !== this.epoch || (this.messages[0]?.seq ?? this.last + 1) !== before) throw new Error("for another list", { cause: OVERTAKEN });
      const ids = new Set(page.messages.map((message) => message.id));
      this.pending = this.pending.filter((one) => one.tick !== "acked" || !ids.has(one.id));
      this.messages.unshift(...page.messages);
      this.beginning = (page.messages[0]?.seq ?? page.oldest) <= page.oldest;
      if (this === current) showEarlier(page.messages.length);
    } catch (error) {
      if (error.cause !== OVERTAKEN) tell(error.cause ? `the server says ${error.cause}` : "the server does not answer");
      const again = () => this.messages.length || rooms.get(this.name) !== this || this.loadEarlier(); // a longer list has its button
      setTimeout(again, between(1_500, 3_000));
    } finally {
      this.loading = false;
    }
  }
}

// ---- who writes. Names are claims: what makes a guest's message mine is that this browser made its id.

const own = new Set();
const isMine = (message) => (message.subject ? message.subject === who.subject : own.has(message.id));
const isKept = (one) => typeof one?.id === "string" && typeof one.text === "string" && Date.parse(one.at) > 0;
const isUnanswered = (one) => one.tick === "kept" || one.tick === "sent";
const isUnstored = (one) => one.tick !== "acked"; // those too that never will be, for whoever wants to edit them
const isOurs = (one) => !one.subject || one.subject === who.subject; // and not of who was signed in before

// Other tabs write here too: what they have kept comes in before anything is kept anew.
function recallOwn() {
  for (const id of recall("localStorage", "own", [])) own.add(id);
}

function remember(id) {
  recallOwn();
  own.add(id);
  keep("localStorage", "own", [...own].slice(-1000));
}

function inventName() {
  const pick = (words) => words[Math.floor(Math.random() * words.length)];
  const first = pick(["Brave", "Salty", "Swift", "Merry", "Quiet", "Sunlit", "Bold", "Windy", "Lucky", "Early"]);
  return `${first} ${pick(["Otter", "Gull", "Dolphin", "Heron", "Turtle", "Pelican", "Octopus", "Kingfisher", "Seal", "Crab"])}`;
}

// Without what nobody would see. Joiners stay where they may show, as between Persian letters and in a family; which of
// them do is for the service to say.
function saneName(name) {
  const seen = name.normalize("NFC").replace(/\p{Zs}/gu, " ").replace(/(?![ \u200c\u200d])[\p{C}\p{Z}]/gu, "");
  const joined = seen.replace(/(?<![\p{L}\p{M}\p{S}])[\u200c\u200d]|(?<=\p{Script=Latin})[\u200c\u200d]/gu, "");
  return [...trimBlanks(joined)].slice(0, 64).join("").replace(/(?<!\p{M})[\u200c\u200d]$/u, "").trim();
}

const trimBlanks = (text) => text.replace(/^[ \u115f\u1160\u2800\u3164\uffa0]+|[ \u115f\u1160\u2800\u3164\uffa0]+$/gu, "");

function paintAvatar(element, name) {
  let hash = 7;
  for (const c of name) hash = (hash * 31 + c.codePointAt(0)) % 9973;
  element.style.setProperty("--hue", (hash * 137) % 360); // names that differ by little differ by much
  const words = name.split(" ").filter(Boolean);
  element.textContent = [words[0], words.length > 1 ? words.at(-1) : ""].map((word) => [...(word ?? "")][0] ?? "").join("").toUpperCase();
}

// ---- showing

const rooms = new Map();
let current = null;
let line = null;

// What this browser has open, in whichever tab.
const keepRooms = (change) => keep("localStorage", "rooms", [...change(new Set(recall("localStorage", "rooms", [...rooms.keys()])))]);

const sum = (property) => [...rooms.values()].reduce((total, room) => total + room[property], 0);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function tick() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 18 12");
  svg.setAttribute("class", "tick");
  for (const [kind, shape] of [["", "M1 6.5l4 4L13 1.5"], ["second", "M7 9l1.5 1.5 8-9"]]) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", shape);
    path.setAttribute("class", kind);
    svg.append(path);
  }
  return svg;
}

const inFigures = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric", minute: "numeric", second: "numeric" };
// Each is made once: to make one takes as long as the rest of a message.
const [clock, day, moment] = [{ hour: "2-digit", minute: "2-digit" }, { weekday: "long", day: "numeric", month: "long" }, inFigures].map((how) => {
  const format = new Intl.DateTimeFormat([], how);
  return (at) => format.format(new Date(at));
});
const isLarge = (text) => text.length < 40 && /^[\p{Extended_Pictographic}\p{Emoji_Modifier}\u200d\ufe0f\s]+$/u.test(text);

function messageNode(message, previous) {
  const follows = previous && previous.from === message.from && (previous.subject ?? "") === (message.subject ?? "") && isMine(previous) === isMine(message)
    && Date.parse(message.at) - Date.parse(previous.at) < 300_000 && day(previous.at) === day(message.at);
  const mine = isMine(message);
  const node = element("li", { className: `message${follows ? "" : " first"}${mine ? " mine" : ""}` });
  node.dataset.seq = message.seq;
  if (isLarge(message.text)) node.classList.add("large");
  const avatar = element("span", { className: follows ? "" : "avatar", ariaHidden: "true" });
  if (!follows) paintAvatar(avatar, message.from);
  const time = element("time", { dateTime: message.at, title: moment(message.at) }, clock(message.at));
  const seq = element("code", { title: "its place in the room's one order" }, `#${message.seq}`);
  const meta = element("span", { className: "meta" }, ...(mine || follows ? [time, seq] : [seq]));
  node.append(avatar);
  if (!follows && !mine) {
    const verified = Boolean(message.subject); // null by HTTP, missing in a frame
    const title = verified ? "signed in; the identity provider says so" : "a name is a claim; nobody has checked it";
    const who = element("bdi", { title, className: verified ? "verified" : "" }, message.from);
    node.append(element("div", { className: "who" }, who, time));
  }
  if (!follows && mine) node.append(element("span", { className: "hidden" }, "you"));
  node.append(element("div", { className: "body" }, element("p", { className: "bubble", dir: "auto" }, message.text)), meta);
  if (mine) {
    node.dataset.tick = "acked";
    meta.append(element("span", { className: "hidden" }, "stored"), tick());
  }
  return node;
}

const TICKS = { kept: "kept here", sent: "sent", acked: "stored", failed: "not sent" };

// Made anew only when it says something else, for the same reason as a room's.
function pendingNode(room, one) {
  const kept = isOurs(one) ? "" : `kept for ${one.author}, who wrote it`;
  const said = one.tick === "failed" ? `not sent: ${one.reason}` : kept;
  if (one.shown?.said === `${one.tick} ${said}`) return one.shown.node;
  const node = element("li", { className: "message mine" });
  one.shown = { said: `${one.tick} ${said}`, node };
  node.dataset.tick = one.tick;
  if (isLarge(one.text)) node.classList.add("large");
  const meta = element("span", { className: "meta", title: TICKS[one.tick] }, element("time", { dateTime: one.at }, clock(one.at)));
  if (said) {
    meta.append(said, element("button", {
      type: "button",
      onclick: () => {
        room.drop(one);
        $("text").value = [one.text, $("text").value].filter(Boolean).join("\n"); // what is being written stays, too
        keepDraft();
        measure();
        $("text").focus();
      },
    }, "Edit"));
  }
  meta.append(element("span", { className: "hidden" }, TICKS[one.tick]), tick());
  node.append(meta, element("div", { className: "body" }, element("p", { className: "bubble", dir: "auto" }, one.text)));
  return node;
}

const nearEnd = () => $("scroller").scrollHeight - $("scroller").scrollTop - $("scroller").clientHeight < 80;
const isHeld = () => drawn - seen >= MAX_SHOWN; // whoever reads back is given more as he comes to it
const atEnd = () => nearEnd() && !isHeld();
let ended = true; // the end was in sight after the last scrolling
let box = { width: 0, height: 0 }; // in which it was
const boxNow = () => ({ width: $("scroller").clientWidth, height: $("scroller").clientHeight });

function toEnd() {
  $("scroller").scrollTop = $("scroller").scrollHeight;
  ended = true;
}
let drawn = 0; // the seq of the last message that is in the page
let seen = 0; // and of the last one that was, when its end was in sight
let soon = null;
const countDrawn = () => current.messages.findLastIndex((message) => message.seq <= drawn) + 1; // from the first on

// The nodes of some messages of the current room, with what stands between them.
function nodes(from, to) {
  return current.messages.slice(from, to).flatMap((message, index) => {
    let previous = current.messages[from + index - 1];
    const made = [];
    if (current.divider && message.seq > current.divider.after && !(previous?.seq > current.divider.after)) {
      made.push(current.divider.node);
      previous = null;
    }
    if (!previous || day(previous.at) !== day(message.at)) made.push(element("li", { className: "day" }, day(message.at)));
    return [...made, messageNode(message, previous)];
  });
}

function drawNext(most = Infinity) {
  const from = countDrawn();
  const made = nodes(from, from + most);
  for (const node of made) node.classList.add("fresh");
  $("log").append(...made);
  drawn = current.messages[Math.min(from + most, current.messages.length) - 1].seq;
}

// Makes the first messages anew, down to one that is there: whose author may have been named above it.
function drawAbove(node, index) {
  while ($("log").firstElementChild !== node) $("log").firstElementChild.remove();
  node.replaceWith(...nodes(0, index + 1));
}

// What was there before is not news. A reader is told of a frame once it is drawn: until then, and no longer, it is busy.
function quieten() {
  $("live").ariaBusy = "true";
  cancelAnimationFrame(quieten.frame);
  quieten.frame = requestAnimationFrame(() => {
    quieten.frame = requestAnimationFrame(() => { $("live").ariaBusy = "false"; });
  });
}

function showEarlier(count) {
  const first = $("log").querySelector(".message");
  if (!first) return showRoom();
  const fromEnd = $("scroller").scrollHeight - $("scroller").scrollTop;
  quieten();
  drawAbove(first, count);
  $("scroller").scrollTop = $("scroller").scrollHeight - fromEnd;
  showEdges();
}

// Together, some times a second: to lay the page out anew takes as long as many messages.
function showSoon() {
  soon ??= setTimeout(showNews, 20);
}

function showNews() {
  clearTimeout(soon);
  soon = null;
  showRooms();
  const first = countDrawn();
  if (first === current.messages.length) return;
  if (atEnd() || current.messages.slice(first).some(isMine)) follow();
  else if (!isHeld()) drawNext(seen + MAX_SHOWN - drawn); // however many came in together
  showEdges();
  showNewer();
}

function follow() {
  current.forgetEarly();
  if (current.messages[0].seq > drawn) return showRoom();
  drawNext();
  const first = $("log").querySelector(`[data-seq="${current.messages[0].seq}"]`);
  if ($("log").querySelector(".message") !== first) drawAbove(first, 0);
  seen = drawn;
  toEnd();
  showNewer();
  showEdges();
}

function reachEnd() {
  const near = nearEnd();
  const { width, height } = boxNow();
  if (width === box.width && height >= box.height) ended = near; // else it is the browser that scrolled, and keepEnd follows
  if (!near) return;
  if (isHeld()) return current.last - drawn > PAGE ? drawNext(PAGE) : follow();
  seen = drawn;
  showNewer();
}

// With less room than before, as beside a phone's keyboard or a text of many lines, who saw the end sees it still.
function keepEnd() {
  box = boxNow();
  if (ended && !isHeld()) toEnd();
}

function showNewer() {
  const below = current.last - seen;
  $("newer").hidden = !(below > 0);
  $("newer").textContent = `${below} new ↓`;
}

function showPending(room) {
  if (room === current) {
    const stick = atEnd();
    const nodes = new Set(room.pending.map((one) => pendingNode(room, one)));
    for (const node of [...$("pending").children]) if (!nodes.has(node)) node.remove();
    let next = $("pending").firstElementChild;
    for (const node of nodes) {
      if (node === next) next = next.nextElementSibling;
      else $("pending").insertBefore(node, next);
    }
    if (stick) toEnd();
    showEdges();
  }
  if (line) showStatus();
}

function showEdges() {
  const nothing = !current.messages.length && !current.pending.length;
  $("empty").hidden = !(nothing && current.beginning);
  $("earlier").hidden = !current.messages.length || current.beginning;
  $("start").hidden = !current.messages.length || !current.beginning;
  $("start").textContent = current.messages[0]?.seq > 1 ? "Older messages are no longer kept." : "This is where the room begins.";
  $("subtitle").textContent = current.count ? `${current.count} here now` : "open to everybody who knows its name";
}

function showRoom({ keepPlace = false } = {}) {
  const fromEnd = $("scroller").scrollHeight - $("scroller").scrollTop;
  const stick = !keepPlace || atEnd();
  if (stick) current.forgetEarly();
  const to = stick ? current.messages.length : countDrawn();
  $("title").textContent = current.name;
  $("second").href = `#${current.name}`;
  $("text").placeholder = `Write to #${current.name}`;
  quieten();
  $("log").replaceChildren(...nodes(0, to));
  if (current.divider && !current.divider.node.isConnected) $("log").append(current.divider.node);
  drawn = current.messages[to - 1]?.seq ?? current.last ?? 0;
  seen = stick ? drawn : Math.min(seen, drawn);
  showPending(current);
  if (stick) toEnd();
  else $("scroller").scrollTop = $("scroller").scrollHeight - fromEnd;
  showNewer();
  showRooms();
}

// Made once: what is replaced while somebody is about to press it is not pressed, and loses the focus.
function roomItem(room) {
  const badge = element("b", { title: "unread" });
  const open = element("button", { className: "open", type: "button", onclick: () => enter(room.name) }, element("span", {}, room.name), badge);
  const away = element("button", { className: "icon leave", type: "button", ariaLabel: `Leave ${room.name}`, onclick: () => leave(room) }, "×");
  return { item: element("li", {}, open, away), open, badge, away };
}

function showRooms() {
  if (!document.hidden) current.unread = 0;
  for (const room of rooms.values()) {
    const { item, open, badge, away } = room.shown ??= roomItem(room);
    badge.hidden = !room.unread;
    badge.textContent = room.unread > 99 ? "99+" : room.unread || "";
    open.ariaCurrent = room === current ? "true" : null;
    item.className = room === current ? "current" : "";
    away.hidden = rooms.size === 1;
    if (!item.isConnected) $("rooms").append(item);
  }
  const unread = sum("unread");
  $("elsewhere").hidden = !unread;
  $("elsewhere").textContent = unread > 99 ? "99+" : unread;
  document.title = `${unread ? `(${unread}) ` : ""}${current.name} · ${TITLE}`;
  showFacts();
}

function showFacts() {
  $("fact-seq").textContent = `#${current.last ?? 0}`;
  $("fact-waiting").textContent = sum("waiting");
  $("fact-reconnects").textContent = Math.max(0, (line?.made ?? 0) - 1);
}

// For what somebody asked for and did not get.
function say(text) {
  Object.assign(showStatus, { said: text, saidUntil: Date.now() + 10_000 });
  showStatus();
}

function statusText() {
  if (Date.now() < showStatus.saidUntil) return showStatus.said;
  const waiting = sum("waiting");
  const kept = waiting ? ` ${waiting} waiting here.` : " What you write is kept here.";
  switch (line.state) {
    case "connecting": return line.made ? `Connecting again…${waiting ? kept : ""}` : "Connecting…";
    case "draining": return `This replica is restarting; moving to another.${waiting ? kept : ""}`;
    case "cut": return `${line.reason}${kept}`;
    case "stranger": return `${line.made ? "You are signed out." : "Sign in to read and write here."}${waiting ? kept : ""}`;
    case "offline": return `Offline. ${line.reason}${kept}`;
  }
  if (current.trouble) return `Connected, and the server cannot store: ${current.trouble}.${kept}`;
  if (Date.now() < showStatus.backUntil) return showStatus.back;
  return `Connected to replica ${line.replica}.`;
}

// Apart from the text, which is read aloud whenever it changes: this changes each second.
function clockText() {
  return line.state === "offline" && !line.socket ? `Next try in ${Math.max(0, Math.ceil((line.retryAt - Date.now()) / 1000))} s.` : "";
}

// To set the same text again is a change as well, and read aloud. What is there is not looked at: a browser that
// translates the page has put its own words there.
function setText(element, text) {
  if (lastTexts.get(element) === text) return;
  lastTexts.set(element, text);
  element.textContent = text;
}
const lastTexts = new WeakMap();

function showStatus() {
  const trouble = line.state === "open" && current.trouble;
  $("status").dataset.state = trouble ? "waiting" : line.state === "cut" ? "offline" : line.state;
  document.body.classList.toggle("stranger", line.state === "stranger");
  setText($("status-text"), statusText());
  $("status-clock").textContent = clockText();
  $("status-action").hidden = !["offline", "cut"].includes(line.state) && !(line.state === "stranger" && who.sign_in);
  setText($("status-action"), { cut: "Mend it", stranger: "Sign in" }[line.state] ?? "Try now");
  $("ship").dataset.state = $("status").dataset.state;
  $("cut").textContent = line.state === "cut" ? "Mend the line" : "Cut the line";
  $("cut").ariaPressed = String(line.state === "cut");
  $("fact-replica").textContent = line.state === "open" ? line.replica : "none";
  showFacts();
}
showStatus.backUntil = 0;

// Epochs and ids are long and say nothing to a reader but which is which.
const shortened = (_, value) => (typeof value === "string" && /^[0-9a-f-]{24,}$/.test(value) ? `${value.slice(0, 8)}…` : value);

const inWords = ({ type, ...rest }) => JSON.stringify(rest, shortened, 1).replace(/\n\s*/g, " ").slice(0, 600);

function showFrame(direction, frame) {
  const shown = typeof frame === "string" ? frame : inWords(frame);
  const mark = { in: "←", out: "→", event: "·" }[direction];
  $("frames").prepend(element("li", { className: direction }, element("b", {}, `${mark} ${frame.type ?? ""}`), shown));
  while ($("frames").children.length > 80) $("frames").lastElementChild.remove();
  if (direction === "out" && frame.type === "send") {
    $("ship").classList.remove("stroke");
    requestAnimationFrame(() => $("ship").classList.add("stroke"));
  }
}

// ---- what comes in

let lostAt = 0;

function onState(before) {
  if (before === "open" && line.state !== "open") lostAt = Date.now();
  if (line.state === "open" && before !== "open") for (const room of rooms.values()) room.join();
  if (before === "open" && line.state !== "open") for (const room of rooms.values()) room.onLost();
  showStatus();
}

function onFrame(frame) {
  const room = rooms.get(frame.room) ?? [...rooms.values()].find((one) => frame.ref && one.ref === frame.ref);
  switch (frame.type) {
    case "hello":
      line.replica = frame.server;
      break;
    case "joined":
      if (!room || room.ref !== frame.ref) return;
      room.onJoined(frame);
      room.trouble = "";
      room.refused = line.attempt = 0;
      if (room === current) welcomeBack(room);
      if (room === current) showRoom({ keepPlace: !room.lostSight }); // the place went with the messages
      break;
    case "message": room?.onMessage(frame); break;
    case "ack": room?.onAck(frame); break;
    case "presence":
      if (room) room.count = frame.count;
      showEdges();
      break;
    case "error": onError(frame, room); break;
  }
  showStatus();
}

function onError(frame, room) {
  if (frame.id) for (const one of rooms.values()) one.onError(frame);
  else if (room) {
    room.trouble = frame.message.split(";")[0]; // what comes after it is for programs
    const again = () => line.state === "open" && !room.joined && rooms.get(room.name) === room && room.join();
    const pause = Math.max(frame.retry_after_ms ?? 1000, growing(room.refused++));
    if (frame.retryable) setTimeout(again, between(1, 1.5) * pause);
  }
}

function welcomeBack(room) {
  if (!lostAt || room.lostSight) return;
  const seconds = Math.max(1, Math.round((Date.now() - lostAt) / 1000));
  const missed = room.caughtUp === 1 ? "one message has" : `${room.caughtUp} messages have`;
  const told = room.caughtUp > 0 ? `${missed} come in meanwhile` : "you missed nothing";
  showStatus.back = `Back after ${seconds} s, at replica ${line.replica}: ${told}.`;
  showStatus.backUntil = Date.now() + 6_000;
  lostAt = 0;
}

// ---- what people do

function whyNot(name) {
  if (!IS_ROOM.test(name)) return "A room is called by 1 to 64 letters from a to z, digits and -.";
  return rooms.has(name) || rooms.size < MAX_ROOMS ? "" : `You are in ${MAX_ROOMS} rooms, as many as can be: leave one first.`;
}

function enter(name) {
  if (whyNot(name)) return false;
  if (!rooms.has(name)) {
    rooms.set(name, new Room(name));
    keepRooms((kept) => kept.add(name));
    if (line?.state === "open") rooms.get(name).join();
  }
  current = rooms.get(name);
  $("text").value = draft();
  if (location.hash !== `#${name}`) history.replaceState(null, "", `#${name}`);
  measure();
  showRoom();
  if (line) showStatus();
  document.body.classList.remove("roomy");
  if (matchMedia("(pointer: fine)").matches) $("text").focus();
  return true;
}

// What is being written, of each room and each account: another one that signs in here is not shown it.
const drafts = new Map();
const draftKey = (subject = who.subject) => `draft.${current.name}.${subject}`;
const draft = () => drafts.get(draftKey()) ?? recall("sessionStorage", draftKey(), "");

function keepDraft(text = $("text").value, key = draftKey()) {
  drafts.set(key, text); // where the browser keeps nothing
  keep("sessionStorage", key, text);
}

// Who is asking has changed. What was written before that was known at all is theirs, too.
function changeDraft(before) {
  const written = before ? "" : $("text").value;
  $("text").value = [draft(), written].filter(Boolean).join("\n");
  if (written) {
    keepDraft();
    keepDraft("", draftKey(before)); // or it would come again, and to whoever signs in next
  }
  measure();
}

// The address names a room; what it names instead is said, and does not stay there.
function enterNamed() {
  const wanted = location.hash.slice(1);
  if (enter(wanted)) return;
  enter(current?.name ?? rooms.keys().next().value ?? "lobby");
  if (wanted) say(`#${wanted.slice(0, 64)} was not opened. ${whyNot(wanted)}`);
}

function leave(room) {
  if (room.unstored && !confirm(`${room.unstored} messages in #${room.name} are not stored yet. Leave anyway?`)) return;
  line.send({ type: "leave", room: room.name, ref: "leave" });
  rooms.delete(room.name);
  room.giveUp();
  room.shown.item.remove();
  keep("sessionStorage", `pending.${room.name}`, []);
  keepRooms((kept) => kept.difference(new Set([room.name])));
  if (room === current) enter(rooms.keys().next().value);
  else showRooms();
}

function write() {
  const text = $("text").value.toWellFormed().replaceAll("\0", "").trim();
  const length = [...text].length;
  if (length > MAX_TEXT) {
    $("text").setCustomValidity(`A message has at most ${MAX_TEXT} characters; this one has ${length}.`);
    $("text").reportValidity();
  }
  if (!text || length > MAX_TEXT) return;
  $("text").value = "";
  keepDraft();
  measure();
  current.write(text);
  toEnd();
}

function measure() {
  const left = MAX_TEXT - [...$("text").value].length;
  $("text").setCustomValidity("");
  $("left").hidden = left > 300;
  $("left").textContent = left;
  $("left").classList.toggle("over", left < 0);
  if (CSS.supports("field-sizing", "content")) return;
  $("text").style.height = "auto";
  $("text").style.height = `${$("text").scrollHeight}px`;
}

function rename() {
  const name = saneName($("name").value) || line.name;
  $("name").value = name;
  paintAvatar($("your-avatar"), name);
  keep("localStorage", "name", name);
  if (name !== line.name) line.rename(name);
}

// ---- who you are

let who = { identity: false, sign_in: false, signed_in: false, subject: "", name: "" };

// Whether there was an answer; without one it is as before, and with one that is late: it may be about who was signed in then.
async function askWho(isOver) {
  const before = who.subject;
  try {
    const answer = await ask("auth/me", { cache: "no-store" });
    const said = await answer.json();
    if (isOver()) return false;
    who = answer.ok ? said : { ...who, trouble: said.detail };
    if (answer.ok) showWho(who);
    if (before !== who.subject) {
      changeDraft(before);
      showRoom({ keepPlace: true }); // what is mine is not what was
    }
    return answer.ok;
  } catch {
    if (!isOver()) who = { ...who, trouble: "" };
    return false; // no server, or none that answers
  }
}

function showWho({ identity, signed_in: signedIn, name }) {
  $("name").disabled = identity;
  $("sign-out").hidden = !signedIn;
  if (identity) $("name").value = signedIn ? name : "";
  if (signedIn) paintAvatar($("your-avatar"), name);
  const claim = signedIn ? "You are signed in: nobody else can write under your name." : "Who you are is said by signing in.";
  if (identity) $("claim").textContent = claim;
}

function signIn() {
  location.assign(`auth/sign-in?to=${encodeURIComponent(location.pathname + location.hash)}`);
}

async function signOut() {
  try {
    const answer = await ask("auth/sign-out", { method: "POST" });
    const said = await answer.json();
    if (answer.ok) location.assign(said.to);
    else say(`You are not signed out: ${said.detail}.`);
  } catch {
    say("You are not signed out: the server does not answer.");
    mend();
  }
}

function mend() {
  line.attempt = 0;
  line.connect();
}

function drawer(kind, open) {
  document.body.classList.toggle(kind, open);
  $("wire-toggle").ariaExpanded = String(document.body.classList.contains("wired"));
  if (kind === "wired") keep("localStorage", "wired", open);
}

function closeDrawers() {
  drawer("roomy", false);
  if (innerWidth <= 1080) drawer("wired", false);
}

function switchRoom(step) {
  const names = [...rooms.keys()];
  enter(names[(names.indexOf(current.name) + step + names.length) % names.length]);
}

function onKey(event) {
  if (event.key === "Escape") {
    closeDrawers();
    $("text").focus();
  } else if (event.altKey && ["ArrowUp", "ArrowDown"].includes(event.key)) {
    event.preventDefault();
    switchRoom(event.key === "ArrowUp" ? -1 : 1);
  } else if (event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey && event.key !== " "
    && !event.target.closest("input, textarea, button, a")) $("text").focus();
}

// Another tab has kept something, perhaps after its message came in here.
function onStorage() {
  const known = new Set(own);
  recallOwn();
  if (current.messages.some((message) => isMine(message) && !known.has(message.id))) showRoom({ keepPlace: true });
}

function listen() {
  $("composer").onsubmit = (event) => { event.preventDefault(); write(); };
  $("text").oninput = () => { keepDraft(); measure(); };
  $("text").onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === ENDS_COMPOSITION) return;
    event.preventDefault();
    write();
  };
  $("you").onsubmit = (event) => { event.preventDefault(); rename(); $("text").focus(); };
  $("name").onchange = rename;
  $("new-room").onsubmit = (event) => {
    event.preventDefault();
    const wanted = $("room-name").value.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
    if (enter(wanted)) $("room-name").value = "";
    else {
      $("room-name").setCustomValidity(whyNot(wanted));
      $("room-name").reportValidity();
    }
  };
  $("room-name").oninput = () => $("room-name").setCustomValidity("");
  $("earlier").onclick = () => current.loadEarlier((why) => say(`Earlier messages did not come: ${why}.`));
  $("newer").onclick = follow;
  $("scroller").onscroll = reachEnd;
  new ResizeObserver(keepEnd).observe($("scroller"));
  $("cut").onclick = () => (line.state === "cut" ? mend() : line.cut());
  $("status-action").onclick = () => (line.state === "stranger" ? signIn() : mend());
  $("sign-out").onclick = signOut;
  $("wire-toggle").onclick = () => drawer("wired", !document.body.classList.contains("wired"));
  document.querySelector(".skip").onclick = (event) => { event.preventDefault(); $("text").focus(); }; // to name it in the address would open a room
  document.querySelector("[data-open=sidebar]").onclick = () => { drawer("roomy", true); document.querySelector("#rooms .open").focus(); };
  document.querySelector("[data-close=sidebar]").onclick = () => drawer("roomy", false);
  document.querySelector("[data-close=wire]").onclick = () => drawer("wired", false);
  document.onclick = (event) => { if (event.target === document.body) closeDrawers(); }; // beside an open one
  document.onkeydown = onKey;
  document.onvisibilitychange = () => { if (!document.hidden) { showRooms(); line.probe(); } };
  window.ononline = window.onoffline = () => line.probe();
  window.onbeforeunload = (event) => { if (sum("unstored")) event.preventDefault(); };
  window.onstorage = onStorage;
  window.onhashchange = enterNamed;
}

recallOwn();
const name = saneName(recall("localStorage", "name", "")) || inventName();
keep("localStorage", "name", name);
$("name").value = name;
paintAvatar($("your-avatar"), name);
// Other tabs may have opened more than one can be in; the one that the address names is among those that are.
const named = location.hash.slice(1);
for (const known of recall("localStorage", "rooms", ["lobby", "harbour", "galley"])) {
  const reserved = known === named || rooms.has(named) || !IS_ROOM.test(named) ? 0 : 1;
  if (typeof known === "string" && IS_ROOM.test(known) && rooms.size + reserved < MAX_ROOMS) rooms.set(known, new Room(known));
}
line = new Line({ name, onFrame, onState, onWire: showFrame });
listen();
drawer("wired", innerWidth > 1080 && recall("localStorage", "wired", innerWidth > 1240));
enterNamed();
line.connect();
setInterval(showStatus, 500);
