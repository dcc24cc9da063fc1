// <log-view data-run="ID" data-hosts='["web1","web2"]' data-final>: the output of a run.
//
// Only what is seen is in the page: some sixty rows, whatever the log has. Rows are asked for by range as they come into
// view, the server counts and searches, and the stream of live.js says when there is more. All text comes through
// textContent.
//
// Keys while the log has the focus: t times, w wrap, f follow, F full screen, e next error, E errors only, n and N next
// and previous match, / search, arrows, Page Up and Down, Home and End.

import { meant } from "./keymap.js";
import {live} from "./live.js";
import {draw, parse, plain} from "./ansi.js";

const HEIGHT = 18;              // Of a row, as the style sheet has it.
const PAGE = 500;               // Rows that are asked for at once,
const PAGES = 40;               // and how many of those are kept.
const OVER = 10;                // Rows above and below what is seen.
const TALLEST = 12000000;       // Pixels. Firefox draws no element above some 17 million.
const MOST_COPIED = 10000;      // Lines.
const HUES = 5;

export class LogView extends HTMLElement {
    connectedCallback() {
        if (this.ready) return;
        this.ready = true;
        this.run = this.dataset.run;
        this.hosts = JSON.parse(this.dataset.hosts || "[]");
        const asked = new URLSearchParams(location.search).get("host");
        this.host = this.hosts.includes(asked) ? asked : this.hosts.length === 1 ? this.hosts[0] : "";
        this.only = "all";
        this.times = true;
        this.wrapped = false;
        this.range = parseHash(location.hash);
        this.following = !("final" in this.dataset) && !this.range;
        this.build();
        this.reset();
        this.stop = live.subscribe(`log:${this.run}`, () => this.grew());
        this.stopRun = live.subscribe(`run:${this.run}`, rows => {
            if (rows.run?.finished_at) { this.toggleAttribute("data-final", true); this.grew(); this.say(); }
        });
        this.onHash = () => { this.range = parseHash(location.hash); this.jumpToRange(); };
        addEventListener("hashchange", this.onHash);
        new ResizeObserver(() => this.render()).observe(this.scroll);
    }

    disconnectedCallback() {
        this.stop?.();
        this.stopRun?.();
        removeEventListener("hashchange", this.onHash);
    }

    // ---- What it is made of ----

    build() {
        const bar = make("div", "lv-bar", {role: "toolbar", "aria-label": "Log"});
        const toggle = (name, label, keys, act) => {
            const button = make("button", "lv-toggle", {type: "button", "aria-keyshortcuts": keys, title: `${label} (${keys})`});
            button.append(label);
            button.addEventListener("click", act);
            this[name] = button;
            return button;
        };
        if (this.hosts.length > 1) bar.append(this.chooser());
        bar.append(
            toggle("followButton", "Follow", "f", () => this.follow(!this.following)),
            toggle("wrapButton", "Wrap", "w", () => this.wrap()),
            toggle("timeButton", "Time", "t", () => this.time()),
            toggle("errorButton", "Errors", "Shift+E", () => this.errorsOnly()),
            toggle("nextErrorButton", "Next error", "e", () => this.nextError()),
            toggle("foldButton", "Fold all", "", () => this.foldAll()),
        );
        this.foldButton.removeAttribute("aria-keyshortcuts");
        this.foldButton.title = "Fold or open all groups";
        const find = make("div", "lv-find", {role: "search"});
        this.input = make("input", "lv-search", {type: "search", placeholder: "Search log", "aria-label": "Search log", "data-slash": "", maxlength: "1000"});
        this.count = make("span", "lv-count", {role: "status"});
        this.previousButton = make("button", "lv-toggle", {type: "button", title: "Previous match (Shift+N)", "aria-label": "Previous match"});
        this.nextButton = make("button", "lv-toggle", {type: "button", title: "Next match (n)", "aria-label": "Next match"});
        this.previousButton.append("↑");
        this.nextButton.append("↓");
        find.append(this.input, this.count, this.previousButton, this.nextButton);
        const end = make("div", "lv-end");
        this.copyButton = make("button", "lv-toggle", {type: "button", hidden: ""});
        this.fullButton = make("button", "lv-toggle", {type: "button", title: "Full screen (Shift+F)", "aria-keyshortcuts": "Shift+F"});
        this.fullButton.append("Full screen");
        this.download = make("a", "lv-link", {download: ""});
        this.download.append("Download");
        this.raw = make("a", "lv-link", {target: "_blank", rel: "noopener"});
        this.raw.append("Raw");
        end.append(this.copyButton, this.fullButton, this.raw, this.download);
        bar.append(find, end);

        this.frame = make("div", "lv-frame");
        this.scroll = make("div", "lv-scroll", {tabindex: "0", role: "region", "aria-label": "Lines of the output"});
        this.space = make("div", "lv-space");
        this.rows = make("div", "lv-rows");
        this.space.append(this.rows);
        this.scroll.append(this.space);
        this.pill = make("button", "lv-pill", {type: "button", hidden: ""});
        this.note = make("p", "lv-note");
        this.told = make("div", "lv-told", {role: "log", "aria-label": "News of the log"});
        this.frame.append(this.scroll, this.pill, this.note);
        this.append(bar, this.frame, this.told);
        this.listen();
    }

    chooser() {
        const choose = make("select", "lv-hosts", {"aria-label": "Host"});
        for (const [value, label] of [["", `All ${this.hosts.length} hosts`], ...this.hosts.map(host => [host, host])]) {
            const option = make("option", "", {value});
            option.append(label);
            option.selected = value === this.host;
            choose.append(option);
        }
        choose.addEventListener("change", () => this.show(choose.value));
        this.choose = choose;
        return choose;
    }

    listen() {
        this.scroll.addEventListener("scroll", () => this.scrolled());
        this.scroll.addEventListener("wheel", event => event.deltaY < 0 && this.follow(false), {passive: true});
        this.scroll.addEventListener("keydown", event => this.key(event));
        this.pill.addEventListener("click", () => this.follow(true));
        this.fullButton.addEventListener("click", () => this.full());
        this.copyButton.addEventListener("click", () => this.copyRange());
        this.previousButton.addEventListener("click", () => this.find(-1));
        this.nextButton.addEventListener("click", () => this.find(1));
        this.input.addEventListener("input", () => {
            clearTimeout(this.typing);
            this.typing = setTimeout(() => this.search(), 150);
        });
        this.input.addEventListener("keydown", event => {
            if (event.key === "Enter") this.find(event.shiftKey ? -1 : 1);
            if (event.key === "Escape") { this.scroll.focus(); }
        });
        this.rows.addEventListener("click", event => this.clicked(event));
        this.scroll.addEventListener("copy", event => this.copied(event));
    }

    // ---- Keys and buttons ----

    key(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const acts = {
            t: () => this.time(), T: () => this.time(), w: () => this.wrap(), W: () => this.wrap(),
            f: () => this.follow(!this.following), F: () => this.full(),
            e: () => this.nextError(), E: () => this.errorsOnly(),
            n: () => this.find(1), N: () => this.find(-1), "/": () => this.input.focus(),
            ArrowUp: () => { this.follow(false); this.move(-1); }, ArrowDown: () => this.move(1),
            PageUp: () => { this.follow(false); this.move(1 - this.seen()); }, PageDown: () => this.move(this.seen() - 1),
            Home: () => { this.follow(false); this.to(0); }, End: () => this.to(this.length()),
        };
        const act = acts[meant(event.key)];
        if (!act) return;
        event.preventDefault();
        event.stopPropagation();
        act();
    }

    time() { this.times = !this.times; this.render(); }
    wrap() { this.wrapped = !this.wrapped; this.render(); }
    full() {
        if (document.fullscreenElement) document.exitFullscreen();
        else this.requestFullscreen?.().catch(() => {});
    }

    follow(on) {
        if (on === this.following) return;
        this.following = on;
        this.unseen = 0;
        if (on) this.to(this.length());
        this.render();
    }

    show(host) {
        this.host = host;
        const url = new URL(location.href);
        if (host) url.searchParams.set("host", host); else url.searchParams.delete("host");
        url.hash = "";
        history.replaceState(history.state, "", url);
        this.range = null;
        this.reset();
    }

    errorsOnly() {
        const line = this.lineAt(this.top())?.n;
        this.only = this.only === "all" ? "errors" : "all";
        this.reset(line);
    }

    // The first error behind the line on top, or behind the one found before.
    async nextError() {
        const from = this.errorAt ?? (this.lineAt(this.top())?.n ?? 1) - 1;
        this.follow(false);
        const answer = await this.ask("lines", {only: "errors", after: from, count: 1});
        const line = answer?.lines[0];
        if (!line) {
            this.errorAt = null;
            this.tell(from > 0 ? "No error after this line" : "No errors");
            return;
        }
        this.errorAt = line.n;
        this.mark = this.only === "all" ? line.n : line.row;
        this.centre(this.mark);
    }

    // ---- What the server says ----

    url(what, params) {
        const query = new URLSearchParams(params);
        if (this.host) query.set("host", this.host);
        return `/api/v1/runs/${encodeURIComponent(this.run)}/logs/${what}?${query}`;
    }

    async ask(what, params) {
        const asked = this.generation;
        try {
            const answer = await fetch(this.url(what, params), {headers: {accept: "application/json"}, cache: "no-store"});
            const body = await answer.json();
            if (asked !== this.generation) return null;
            if (!answer.ok) { this.tell(body.detail ?? body.title ?? `The server answers ${answer.status}`); return null; }
            return body;
        } catch {
            // The stream says when the server is back, and with it comes the next question.
            return null;
        }
    }

    // Begins anew: another host, other lines.
    reset(line) {
        this.generation = (this.generation ?? 0) + 1;
        this.pages = new Map();
        this.total = 0;
        this.settled = 0;
        this.errors = 0;
        this.groups = [];
        this.folded = new Set();
        this.folds = [];
        this.unseen = 0;
        this.mark = null;
        this.errorAt = null;
        this.asking = false;
        this.goal = this.range ? this.range[0] : line;
        this.download.href = this.url("text", {});
        this.raw.hidden = !this.host;
        if (this.host) this.raw.href = this.url("raw", {stream: "stdout"});
        this.grew();
        if (this.input.value) this.search();
    }

    // There is more, or there may be. One question at a time, and another when something came meanwhile.
    async grew() {
        if (this.asking) { this.again = true; return; }
        this.asking = true;
        this.again = false;
        const asked = this.generation;
        const before = this.length();
        const answer = await this.ask("lines", {only: this.only, count: 1, from: Math.max(1, this.rowsKnown())});
        if (asked !== this.generation) return;
        this.asking = false;
        if (!answer) { setTimeout(() => this.grew(), 2000); return; }
        this.counting = !answer.complete;
        this.total = answer.total;
        this.errors = answer.errors;
        this.groups = answer.groups;
        // Rows that had not ended may read otherwise now.
        for (const [page, kept] of this.pages) {
            if (!Array.isArray(kept)) this.pages.delete(page);
            else if (kept.length < PAGE || kept.some(line => line.n > this.settled)) kept.stale = true;
        }
        this.settled = answer.settled;
        this.hide();
        const more = this.length() - before;
        if (!this.following && before > 0 && more > 0) this.unseen += more;
        if (this.following && more !== 0) this.to(this.length());
        if (this.goal && (this.length() >= this.goal || answer.complete)) this.reach();
        this.render();
        this.announce(more);
        if (this.counting || this.again) setTimeout(() => this.grew(), this.counting ? 50 : 150);
    }

    rowsKnown() { return this.only === "all" ? this.total : this.errors; }
    length() { return Math.max(0, this.rowsKnown() - (this.folds.at(-1)?.before ?? 0) - (this.folds.at(-1)?.count ?? 0)); }

    // The place a link, or the change of the lines that are shown, asks for.
    async reach() {
        let row = this.goal;
        this.goal = null;
        if (this.only === "errors") {
            const answer = await this.ask("lines", {only: "errors", after: Math.max(0, row - 1), count: 1});
            row = answer?.lines[0]?.row ?? this.rowsKnown();
        }
        if (!this.following) this.centre(row);
    }

    jumpToRange() {
        if (!this.range) { this.render(); return; }
        this.follow(false);
        this.centre(this.range[0]);
    }

    page(number) {
        const kept = this.pages.get(number);
        if (kept !== undefined) {
            this.pages.delete(number);
            this.pages.set(number, kept);
            if (kept?.stale) this.reload(number, kept);
            return kept;
        }
        const asked = this.generation;
        this.pages.set(number, null);
        while (this.pages.size > PAGES) this.pages.delete(this.pages.keys().next().value);
        this.load(number).then(lines => {
            if (asked !== this.generation || this.pages.get(number) !== null) return;
            if (lines) this.pages.set(number, lines); else this.pages.delete(number);
            this.render();
        });
        return null;
    }

    // Loads a page anew; what it was stays in view meanwhile.
    reload(number, old) {
        if (old.loading) return;
        old.loading = true;
        const asked = this.generation;
        this.load(number).then(lines => {
            old.loading = false;
            if (asked !== this.generation || this.pages.get(number) !== old) return;
            if (lines) this.pages.set(number, lines);
            this.render();
        });
    }

    // An answer has a bound in bytes too: long lines come in several.
    async load(number) {
        const lines = [];
        const end = Math.min((number + 1) * PAGE, this.rowsKnown());
        while (number * PAGE + lines.length < end) {
            const from = number * PAGE + lines.length + 1;
            const answer = await this.ask("lines", {only: this.only, from, count: end - from + 1});
            if (!answer || answer.lines.length === 0) return lines.length > 0 ? lines : null;
            lines.push(...answer.lines);
        }
        return lines;
    }

    // ---- Groups ----

    // Which rows are folded away, as runs of rows with the number of those hidden before each.
    hide() {
        const ranges = [];
        for (const group of this.only === "all" ? this.groups : []) {
            const end = group.to ?? this.total;
            if (!this.folded.has(group.from) || end <= group.from) continue;
            const last = ranges.at(-1);
            if (last && group.from < last.end) { last.end = Math.max(last.end, end); continue; }
            ranges.push({begin: group.from + 1, end});
        }
        let before = 0;
        this.folds = ranges.map(({begin, end}) => {
            const entry = {begin, count: end - begin + 1, before};
            before += entry.count;
            return entry;
        });
        this.foldButton.hidden = this.groups.length === 0 || this.only !== "all";
    }

    // The row at a place in what is shown, both from 0.
    rowOf(place) {
        let [low, high] = [0, this.folds.length];
        while (low < high) {
            const middle = (low + high) >> 1;
            const entry = this.folds[middle];
            if (entry.begin - 1 - entry.before <= place) low = middle + 1; else high = middle;
        }
        const entry = this.folds[low - 1];
        return entry ? place + entry.before + entry.count : place;
    }

    // Where a row (from 1) is shown; inside of a fold, that is where the fold is.
    placeOf(row) {
        let hidden = 0;
        for (const entry of this.folds) {
            if (entry.begin > row) break;
            hidden += Math.min(entry.count, row - entry.begin + 1);
        }
        return row - 1 - hidden;
    }

    fold(from, on) {
        if (on) this.folded.add(from); else this.folded.delete(from);
        this.hide();
        this.render();
    }

    foldAll() {
        const open = this.groups.some(group => !this.folded.has(group.from));
        this.folded = new Set(open ? this.groups.map(group => group.from) : []);
        this.hide();
        this.render();
    }

    unfoldFor(row) {
        for (const group of this.groups) {
            if (group.from < row && (group.to ?? this.total) >= row) this.folded.delete(group.from);
        }
        this.hide();
    }

    // ---- Where one is ----

    seen() { return Math.max(1, Math.floor(this.scroll.clientHeight / HEIGHT)); }
    tall() { return Math.min(this.length() * HEIGHT, TALLEST); }
    reachable() { return Math.max(0, this.tall() - this.scroll.clientHeight); }

    // The place at the top, as a fraction of rows; beyond the tallest element a pixel is more than a row's share of it.
    top() {
        const steps = Math.max(0, this.length() - this.scroll.clientHeight / HEIGHT);
        const far = this.reachable();
        return far === 0 ? 0 : Math.min(1, this.scroll.scrollTop / far) * steps;
    }

    to(place) {
        const steps = Math.max(0, this.length() - this.scroll.clientHeight / HEIGHT);
        const bounded = Math.max(0, Math.min(place, steps));
        this.space.style.height = `${this.tall()}px`;
        this.scroll.scrollTop = steps === 0 ? 0 : bounded / steps * this.reachable();
        this.last = this.scroll.scrollTop;
        this.render();
    }

    move(by) { this.to(Math.round(this.top()) + by); }

    centre(row) {
        if (this.only === "all") this.unfoldFor(row);
        this.follow(false);
        this.to(this.placeOf(row) - Math.floor(this.seen() / 2));
    }

    scrolled() {
        const now = this.scroll.scrollTop;
        if (now < (this.last ?? 0) - 1 && now < this.reachable() - HEIGHT) this.follow(false);
        else if (!this.following && now >= this.reachable() - 1 && !("final" in this.dataset) && this.length() > this.seen()) this.follow(true);
        this.last = now;
        this.render();
    }

    lineAt(place) {
        const row = this.rowOf(Math.floor(place));
        const kept = this.pages.get(Math.floor(row / PAGE));
        return Array.isArray(kept) ? kept[row % PAGE] : undefined;
    }

    // ---- What is seen ----

    render() {
        if (this.drawing) return;
        this.drawing = true;
        requestAnimationFrame(() => {
            this.drawing = false;
            this.drawRows();
        });
    }

    drawRows() {
        this.say();
        this.space.style.height = `${this.tall()}px`;
        const top = this.top();
        const first = Math.max(0, Math.floor(top) - (this.wrapped ? 0 : OVER));
        const last = Math.min(this.length(), Math.ceil(top) + this.seen() + OVER);
        const drawn = [];
        for (let place = first; place < last; place += 1) {
            const row = this.rowOf(place);
            const page = this.page(Math.floor(row / PAGE));
            drawn.push(this.drawRow(Array.isArray(page) ? page[row % PAGE] : undefined, row + 1));
        }
        const focused = document.activeElement?.closest?.(".lv-fold")?.dataset.from;
        this.rows.replaceChildren(...drawn);
        if (focused) this.rows.querySelector(`.lv-fold[data-from="${focused}"]`)?.focus();
        const atEnd = this.length() > 0 && this.scroll.scrollTop >= this.reachable() - 1;
        const offset = this.scroll.scrollTop - (top - first) * HEIGHT;
        // Wrapped rows are taller than they count: at the end the last of them stands at the bottom.
        const lower = this.wrapped && atEnd ? this.scroll.scrollTop + this.scroll.clientHeight - this.rows.offsetHeight : offset;
        this.rows.style.transform = `translateY(${Math.round(lower)}px)`;
    }

    drawRow(line, row) {
        const element = make("div", "lv-row", {"data-row": String(row)});
        if (!line) {
            element.classList.add("lv-waiting");
            return element;
        }
        element.id = `L${line.n}`;
        element.dataset.n = String(line.n);
        element.classList.toggle("lv-error", line.error);
        element.classList.toggle("lv-marked", Boolean(this.range && line.n >= this.range[0] && line.n <= this.range[1]));
        element.classList.toggle("lv-current", this.mark === row);
        const number = make("span", "lv-n", {title: "Click to link to this line, Shift-click for a range"});
        number.textContent = String(line.n);
        element.append(number);
        if (this.times) {
            const time = make("time", "lv-time", {datetime: line.at, title: line.at});
            time.textContent = clock(line.at);
            element.append(time);
        }
        if (!this.host && this.hosts.length > 1) {
            const host = make("span", `lv-host lv-hue-${this.hosts.indexOf(line.host) % HUES}`, {title: line.host});
            host.textContent = line.host;
            element.append(host);
        }
        element.append(this.drawText(line));
        return element;
    }

    drawText(line) {
        const text = make("span", "lv-text");
        if (line.gap > 0) {
            text.classList.add("lv-gap");
            text.textContent = `${line.gap} bytes were not kept here`;
            return text;
        }
        const group = this.only === "all" && this.groups.find(group => group.from === line.n);
        if (group) {
            const folded = this.folded.has(group.from);
            const button = make("button", "lv-fold", {type: "button", "aria-expanded": String(!folded), "data-from": String(group.from)});
            const lines = (group.to ?? this.total) - group.from;
            button.textContent = folded ? `${group.title} (${lines} lines)` : group.title;
            button.addEventListener("click", () => this.fold(group.from, !folded));
            text.append(button);
            return text;
        }
        const parts = parse(line.text);
        for (const part of this.pattern ? split(parts, this.pattern) : parts) text.append(part.hit ? hit(part) : draw(part));
        return text;
    }

    say() {
        const press = (button, on) => button.setAttribute("aria-pressed", String(on));
        press(this.followButton, this.following);
        press(this.wrapButton, this.wrapped);
        press(this.timeButton, this.times);
        press(this.errorButton, this.only === "errors");
        this.errorButton.textContent = `Errors ${this.errors.toLocaleString("en")}`;
        this.nextErrorButton.disabled = this.errors === 0;
        this.classList.toggle("lv-wrapped", this.wrapped);
        const final = "final" in this.dataset;
        this.followButton.hidden = final;
        this.pill.hidden = final || this.following || this.length() <= this.seen();
        this.pill.textContent = this.unseen > 0 ? `Jump to live · ${this.unseen.toLocaleString("en")} new` : "Jump to live";
        this.told.setAttribute("aria-live", this.following ? "off" : "polite");
        this.copyButton.hidden = !this.range;
        if (this.range) this.copyButton.textContent = this.range[0] === this.range[1] ? "Copy line" : `Copy ${this.range[1] - this.range[0] + 1} lines`;
        const empty = this.length() === 0;
        const waits = final ? "No output." : "No output yet. It appears here as it comes.";
        const none = this.only === "errors" ? "No errors." : waits;
        this.note.hidden = !empty && !this.counting;
        this.note.textContent = this.counting ? `Counting lines… ${this.total.toLocaleString("en")}` : empty ? none : "";
    }

    // One message in five seconds is enough for who listens.
    announce(more) {
        if (more <= 0 || this.following || this.announced) return;
        this.announced = setTimeout(() => { this.announced = null; }, 5000);
        this.told.textContent = `${more} new lines`;
    }

    tell(text) { this.count.textContent = text; }

    // ---- Links and copies ----

    clicked(event) {
        const row = event.target.closest(".lv-n")?.closest(".lv-row");
        if (!row) return;
        const n = Number(row.dataset.n);
        const from = event.shiftKey && this.range ? this.range[0] : n;
        this.range = [Math.min(from, n), Math.max(from, n)];
        const hash = this.range[0] === this.range[1] ? `#L${n}` : `#L${this.range[0]}-L${this.range[1]}`;
        history.replaceState(history.state, "", `${location.pathname}${location.search}${hash}`);
        this.follow(false);
        this.render();
    }

    async copyRange() {
        const lines = [];
        const end = Math.min(this.range[1], this.range[0] + MOST_COPIED - 1);
        while (this.range[0] + lines.length <= end) {
            const from = this.range[0] + lines.length;
            const answer = await this.ask("lines", {from, count: Math.min(2000, end - from + 1)});
            if (!answer || answer.lines.length === 0) break;
            lines.push(...answer.lines.map(line => plain(line.text)));
        }
        await navigator.clipboard?.writeText(lines.join("\n") + "\n").catch(() => {});
        this.tell(`${lines.length} ${lines.length === 1 ? "line" : "lines"} copied`);
    }

    // Without numbers, times and hosts, whatever browsers make of what cannot be selected.
    copied(event) {
        const selection = getSelection();
        if (!selection || selection.isCollapsed) return;
        const rows = [...this.rows.querySelectorAll(".lv-row")].filter(row => selection.containsNode(row, true));
        if (rows.length < 2) return;
        const texts = rows.map(row => row.querySelector(".lv-text")?.textContent ?? "");
        event.clipboardData.setData("text/plain", texts.join("\n"));
        event.preventDefault();
    }

    // ---- Search ----

    search() {
        const text = this.input.value;
        this.searching = (this.searching ?? 0) + 1;
        this.mark = null;
        this.pattern = text ? pattern(text) : null;
        this.tell("");
        this.render();
        if (text) this.look(text, Math.floor(this.rowOf(Math.floor(this.top()))) + 1, 1, this.searching);
    }

    find(way) {
        const text = this.input.value;
        if (!text) { this.input.focus(); return; }
        if (!this.pattern) { this.search(); return; }
        this.searching += 1;
        const here = this.mark ?? Math.floor(this.rowOf(Math.floor(this.top()))) + 1;
        this.look(text, way > 0 && this.mark ? here + 1 : here, way, this.searching);
    }

    // Asks until the server has looked at everything; goes to the first match as soon as there is one.
    async look(q, from, way, search) {
        let gone = false;
        for (;;) {
            const answer = await this.ask("search", {q, from, only: this.only});
            if (!answer || search !== this.searching) return;
            let match = way > 0 ? answer.next : answer.previous;
            if (!match && answer.complete && answer.matches > 0) match = await this.around(q, way);
            if (search !== this.searching) return;
            if (match && !gone) {
                gone = true;
                this.mark = match.row;
                this.centre(match.row);
            }
            this.nth = match?.nth ?? this.nth;
            const count = answer.matches.toLocaleString("en") + (answer.more || !answer.complete ? "+" : "");
            this.tell(answer.matches === 0 ? (answer.complete ? "No match" : "Searching…") : gone ? `${this.nth.toLocaleString("en")} of ${count}` : count);
            if (answer.complete) return;
            await new Promise(later => setTimeout(later, 50));
        }
    }

    // Past the last match comes the first, and the other way round.
    async around(q, way) {
        const answer = await this.ask("search", {q, only: this.only, from: way > 0 ? 1 : Number.MAX_SAFE_INTEGER});
        return way > 0 ? answer?.next : answer?.previous;
    }
}

// #L120 or #L120-L130.
function parseHash(hash) {
    const found = /^#L(\d{1,12})(?:-L(\d{1,12}))?$/.exec(hash);
    if (!found) return null;
    const [from, to] = [Number(found[1]), Number(found[2] ?? found[1])];
    return from > 0 ? [Math.min(from, to), Math.max(from, to)] : null;
}

function make(name, classes, attributes = {}) {
    const element = document.createElement(name);
    if (classes) element.className = classes;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
}

function clock(at) {
    const time = new Date(at);
    return Number.isNaN(time.valueOf()) ? "" : time.toLocaleTimeString("en-GB");
}

// As the server looks for it: without capitals in any case.
function pattern(text) {
    const escaped = text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    return new RegExp(escaped, /\p{Lu}/u.test(text) ? "gu" : "giu");
}

// Cuts the parts of a line at the matches in its whole text: a match may go over colours.
function split(parts, pattern) {
    const whole = parts.map(part => part.text).join("");
    const hits = [...whole.matchAll(pattern)].slice(0, 200).map(found => [found.index, found.index + found[0].length]);
    const cut = [];
    let at = 0;
    for (const part of parts) {
        const end = at + part.text.length;
        let from = at;
        for (const [begin, stop] of hits) {
            if (stop <= from || begin >= end) continue;
            if (begin > from) cut.push({text: whole.slice(from, begin), style: part.style});
            const to = Math.min(stop, end);
            cut.push({text: whole.slice(Math.max(begin, from), to), style: null, hit: true});
            from = to;
        }
        if (from < end) cut.push({text: whole.slice(from, end), style: part.style});
        at = end;
    }
    return cut;
}

function hit(part) {
    const mark = document.createElement("mark");
    mark.textContent = part.text;
    return mark;
}

customElements.define("log-view", LogView);
