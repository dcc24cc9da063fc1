// Live data: one event stream for all tabs of a browser.
//
// HTTP/1.1 allows six connections to a server, so tabs share one: a SharedWorker holds the stream, or, where there is
// none, the tab that holds a lock does and tells the others. This file is both: the page's module and the worker's.
//
// How a page uses it
//   Topics: changes (keys: hosts, jobs, runs, audit), hosts (key: host id), jobs (job name), runs (run id), run:ID (keys: run, task/HOST), log:ID (host name).
//   Values are those of the API (`/api/v1/events` in the OpenAPI document).
//
//   1. Cells. An element with these attributes follows one field of one row, by itself, also when htmx brings it in:
//        <td data-topic="hosts" data-key="{{ host.id }}" data-field="state">online</td>
//        data-field      a path into the row: state, report.total, labels.site
//        data-format     the name of a formatter; without it the value becomes the text of the element
//      A formatter draws a value its own way: live.format("status", (element, value, row) => { … }).
//      Text is set with textContent only. A cell whose row is gone gets the attribute data-gone.
//   2. Lists. An element with data-topic and data-list hears of rows that no cell of it shows, and of rows that are
//      gone, as the event "live:rows" (detail: {topic, added: [keys], gone: [keys]}), at most once a second. So htmx:
//        <tbody data-topic="hosts" data-list hx-get="/hosts?…" hx-trigger="live:rows" …>
//   3. Scripts. const stop = live.subscribe("run:ID", (rows, kind) => { … }); kind is "snapshot" (all rows: what is not
//      among them is gone) or "delta" (a null row is gone).
//   An element [data-live-state] shows whether the stream stands: its attribute becomes connected or reconnecting, and
//   the event "live:state" on document tells it too.

const BEATS_MISSED = 40000;     // Two beats of the server and some: after a sleep a connection may be dead without a word.
const FORGET_HIDDEN = 30000;    // A tab that nobody sees follows nothing after this.
const RETRY = [500, 1000, 2000, 5000, 10000];
const MOST_TOPICS = 32;         // Of one stream; the server refuses more.

// ---- Who holds the stream: in a worker, or in the tab with the lock ----

export class Source {
    // tell(port, message) reaches one tab. Tabs are told apart by what they gave as port.
    constructor(tell) {
        this.tell = tell;
        this.ports = new Map();   // port -> Set of topics
        this.rows = new Map();    // topic -> Map of rows, so that a tab that comes late needs no new stream
        this.id = null;
        this.stream = null;
        this.open = "";           // the topics of the stream that is open
        this.state = "reconnecting";
        this.tries = 0;
    }

    hear(port, message) {
        if (message.kind === "follow") {
            const before = this.ports.get(port) ?? new Set();
            this.ports.set(port, new Set(message.topics));
            this.tell(port, {kind: "state", state: this.state});
            for (const topic of message.topics) {
                if (!before.has(topic) && this.rows.has(topic)) {
                    this.tell(port, {kind: "snapshot", topic, rows: Object.fromEntries(this.rows.get(topic))});
                }
            }
            this.settle();
        } else if (message.kind === "gone") {
            this.ports.delete(port);
            this.settle();
        } else if (message.kind === "wake") {
            if (!this.stream || Date.now() - this.heard > BEATS_MISSED / 2) this.connect();
        }
    }

    wanted() {
        const all = new Set();
        for (const topics of this.ports.values()) for (const topic of topics) all.add(topic);
        return [...all].sort().slice(0, MOST_TOPICS);
    }

    // One look at what is wanted for all that changes in a moment: a page asks for its topics one by one.
    settle() {
        clearTimeout(this.settling);
        this.settling = setTimeout(() => {
            const wanted = this.wanted();
            for (const topic of [...this.rows.keys()]) if (!wanted.includes(topic)) this.rows.delete(topic);
            if (wanted.join() !== this.open || !this.stream) this.connect();
        }, 20);
    }

    connect() {
        this.stream?.close();
        this.stream = null;
        clearTimeout(this.retry);
        clearInterval(this.watch);
        const wanted = this.wanted();
        this.open = wanted.join();
        if (wanted.length === 0) return;
        const known = wanted.filter(topic => this.rows.has(topic) && this.id);
        const fresh = wanted.filter(topic => !known.includes(topic));
        const query = new URLSearchParams({topics: known.join(), fresh: fresh.join()});
        if (known.length > 0) query.set("since", this.id);
        const stream = new EventSource(`/api/v1/events?${query}`);
        this.stream = stream;
        this.heard = Date.now();
        for (const kind of ["hello", "beat", "snapshot", "delta"]) {
            stream.addEventListener(kind, event => this.stream === stream && this.take(kind, event));
        }
        stream.onerror = () => this.stream === stream && this.lost();
        this.watch = setInterval(() => {
            if (Date.now() - this.heard > BEATS_MISSED) this.lost();
        }, 5000);
    }

    take(kind, event) {
        this.heard = Date.now();
        this.tries = 0;
        if (event.lastEventId) this.id = event.lastEventId;
        this.become("connected");
        if (kind === "hello" || kind === "beat") return;
        const {topic, rows} = JSON.parse(event.data);
        const kept = kind === "snapshot" ? new Map() : this.rows.get(topic) ?? new Map();
        for (const [key, row] of Object.entries(rows)) {
            if (row === null) kept.delete(key); else kept.set(key, row);
        }
        this.rows.set(topic, kept);
        for (const [port, topics] of this.ports) {
            if (topics.has(topic)) this.tell(port, {kind, topic, rows});
        }
    }

    // The browser would try again by itself, but not after an answer that is none, and not with the topics of then.
    lost() {
        this.stream?.close();
        this.stream = null;
        clearInterval(this.watch);
        this.become("reconnecting");
        const wait = RETRY[Math.min(this.tries, RETRY.length - 1)];
        this.tries += 1;
        clearTimeout(this.retry);
        this.retry = setTimeout(() => this.signedIn().then(yes => yes && this.connect()), wait);
    }

    // Whether the server still knows who this is. It may be away: then yes, until it says otherwise.
    async signedIn() {
        try {
            const answer = await fetch("/api/v1/server", {headers: {accept: "application/json"}, cache: "no-store"});
            if (answer.status !== 401) return true;
            for (const port of this.ports.keys()) this.tell(port, {kind: "state", state: "signed-out"});
            return false;
        } catch {
            return true;
        }
    }

    become(state) {
        if (this.state === state) return;
        this.state = state;
        for (const port of this.ports.keys()) this.tell(port, {kind: "state", state});
    }
}

// ---- The worker ----

const inWorker = typeof SharedWorkerGlobalScope !== "undefined" && self instanceof SharedWorkerGlobalScope;

if (inWorker) {
    const source = new Source((port, message) => port.postMessage(message));
    self.onconnect = event => {
        const port = event.ports[0];
        port.onmessage = message => source.hear(port, message.data);
    };
}

// ---- The page ----

// How a page reaches the stream: send(message), and what it hears goes to `hear`.
function throughWorker(hear) {
    const worker = new SharedWorker(import.meta.url, {type: "module", name: "fleetwright-live"});
    worker.port.onmessage = event => hear(event.data);
    worker.onerror = () => document.dispatchEvent(new CustomEvent("live:failed"));
    return message => worker.port.postMessage(message);
}

// Without workers: whoever gets the lock holds the stream until its tab closes, then the next.
function throughTabs(hear) {
    const me = crypto.getRandomValues(new Uint32Array(4)).join("-");
    const channel = new BroadcastChannel("fleetwright-live");
    let source = null;
    let last = null;
    const toAll = message => channel.postMessage(message);
    channel.onmessage = event => {
        const {to, from, message} = event.data;
        if (source && to === "source") source.hear(from, message);
        else if (to === me) hear(message);
        else if (to === "all" && last) toAll({to: "source", from: me, message: last});
    };
    const lead = () => {
        source = new Source((port, message) => port === me ? hear(message) : toAll({to: port, message}));
        if (last) source.hear(me, last);
        toAll({to: "all"});
        return new Promise(() => {});
    };
    if (navigator.locks) navigator.locks.request("fleetwright-live", lead); else lead();
    return message => {
        if (message.kind === "follow") last = message;
        if (source) source.hear(me, message); else toAll({to: "source", from: me, message});
    };
}

class Live {
    constructor() {
        this.handlers = new Map();    // topic -> Set of functions
        this.rows = new Map();        // topic -> Map of rows, as far as they were told
        this.formats = new Map();
        this.lists = new Map();       // element -> what it has still to be told
        this.state = "reconnecting";
        const hear = message => this.hear(message);
        const works = typeof SharedWorker === "function" && !new URLSearchParams(location.search).has("no-worker");
        this.send = works ? throughWorker(hear) : throughTabs(hear);
        document.addEventListener("visibilitychange", () => this.visibility());
        for (const name of ["online", "pageshow", "focus"]) {
            addEventListener(name, () => this.send({kind: "wake"}));
        }
        addEventListener("pagehide", () => this.send({kind: "gone"}));
        addEventListener("pageshow", event => event.persisted && this.follow());
        // What htmx or a script brings into the page follows too.
        new MutationObserver(() => this.look()).observe(document.documentElement, {childList: true, subtree: true});
        this.look();
    }

    subscribe(topic, handler) {
        if (!this.handlers.has(topic)) this.handlers.set(topic, new Set());
        this.handlers.get(topic).add(handler);
        if (this.rows.has(topic)) handler(Object.fromEntries(this.rows.get(topic)), "snapshot");
        this.follow();
        return () => {
            this.handlers.get(topic)?.delete(handler);
            this.follow();
        };
    }

    format(name, draw) {
        this.formats.set(name, draw);
        for (const cell of document.querySelectorAll(`[data-topic][data-format="${CSS.escape(name)}"]`)) this.fill(cell);
    }

    // The topics that cells and scripts need now.
    topics() {
        const topics = new Set();
        for (const element of document.querySelectorAll("[data-topic]")) topics.add(element.dataset.topic);
        for (const [topic, handlers] of this.handlers) if (handlers.size > 0) topics.add(topic);
        return [...topics].sort();
    }

    look() {
        if (this.looking) return;
        this.looking = true;
        setTimeout(() => {
            this.looking = false;
            this.follow();
            // Cells that came with older values than what was told since.
            for (const cell of document.querySelectorAll("[data-topic][data-key]:not([data-told])")) {
                cell.dataset.told = "";
                this.fill(cell);
            }
        }, 50);
    }

    follow() {
        const topics = this.paused ? [] : this.topics();
        if (topics.join() === this.followed) return;
        this.followed = topics.join();
        for (const topic of [...this.rows.keys()]) if (!topics.includes(topic)) this.rows.delete(topic);
        this.send({kind: "follow", topics});
    }

    visibility() {
        clearTimeout(this.hiding);
        if (document.hidden) {
            this.hiding = setTimeout(() => { this.paused = true; this.follow(); }, FORGET_HIDDEN);
        } else {
            this.paused = false;
            this.follow();
            this.send({kind: "wake"});
        }
    }

    hear(message) {
        if (message.kind === "state") return this.become(message.state);
        const {kind, topic, rows} = message;
        const kept = this.rows.get(topic) ?? new Map();
        // A snapshot of runs has the last ones only.
        if (kind === "snapshot" && topic !== "runs") {
            for (const key of kept.keys()) if (!(key in rows)) rows[key] = null;
        }
        for (const [key, row] of Object.entries(rows)) {
            if (row === null) kept.delete(key); else kept.set(key, row);
        }
        this.rows.set(topic, kept);
        for (const handler of this.handlers.get(topic) ?? []) handler(rows, kind);
        this.show(topic, rows, kind);
    }

    show(topic, rows, kind) {
        const shown = new Set();
        for (const cell of document.querySelectorAll(`[data-topic="${CSS.escape(topic)}"][data-key]`)) {
            shown.add(cell.dataset.key);
            if (cell.dataset.key in rows) this.fill(cell);
            else if (kind === "snapshot" && topic !== "runs") cell.toggleAttribute("data-gone", true);
        }
        for (const list of document.querySelectorAll(`[data-topic="${CSS.escape(topic)}"][data-list]`)) {
            const known = key => shown.has(key);
            const added = Object.keys(rows).filter(key => rows[key] !== null && !known(key));
            const gone = Object.keys(rows).filter(key => rows[key] === null && known(key));
            // The page was made with the rows of a moment before its first snapshot.
            const first = kind === "snapshot" && !list.dataset.listed;
            list.dataset.listed = "1";
            if (!first && added.length + gone.length > 0) this.announce(list, topic, added, gone);
        }
    }

    announce(list, topic, added, gone) {
        const waiting = this.lists.get(list) ?? {topic, added: [], gone: []};
        waiting.added.push(...added);
        waiting.gone.push(...gone);
        if (this.lists.has(list)) return;
        this.lists.set(list, waiting);
        setTimeout(() => {
            this.lists.delete(list);
            list.dispatchEvent(new CustomEvent("live:rows", {bubbles: true, detail: waiting}));
        }, 1000);
    }

    fill(cell) {
        const {topic, key, field, format} = cell.dataset;
        const row = this.rows.get(topic)?.get(key);
        if (row === undefined) {
            if (this.rows.has(topic) && topic !== "runs") cell.toggleAttribute("data-gone", true);
            return;
        }
        cell.toggleAttribute("data-gone", false);
        if (field === undefined) return;
        const value = field.split(".").reduce((value, name) => value?.[name], row);
        const draw = this.formats.get(format);
        if (draw) draw(cell, value, row);
        else if (!format) {
            const text = value === null || value === undefined ? "" : String(value);
            if (cell.textContent !== text) cell.textContent = text;
        }
    }

    become(state) {
        if (state === "signed-out") {
            location.assign(`/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`);
            return;
        }
        this.state = state;
        for (const element of document.querySelectorAll("[data-live-state]")) element.dataset.liveState = state;
        // Said only of a stream that stood before: the first takes a moment to open.
        const banner = document.querySelector("[data-offline]");
        if (banner && this.stood) banner.hidden = state === "connected";
        if (state === "connected" && this.stood) document.dispatchEvent(new CustomEvent("fw:changed"));
        this.stood ||= state === "connected";
        document.dispatchEvent(new CustomEvent("live:state", {detail: {state}}));
    }
}

export const live = inWorker ? null : new Live();
