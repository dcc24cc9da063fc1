// Text of terminals, as styled parts: colours (ECMA-48 SGR, 16, 256 and true) are kept, every other escape sequence is
// dropped, and of what was overwritten (`50%\r100%`) the last is left. Output is data: it never becomes markup.

const NAMES = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

// One sequence: control sequences, control strings (OSC and the like) to their end, and short ones. One that does not end
// takes the rest of the line.
const SEQUENCE = /\x1b(?:\[([\x20-\x3f]*)([\x40-\x7e]|$)|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|(?=\x1b)|$)|[\x20-\x2f]+(?:[^\x20-\x2f]|$)|[^\[\]PX^_\x20-\x2f]|$)/g;

// What terminals do not show, and what turns the direction of text around.
const UNSEEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g;

function overwritten(line) {
    const text = line.replace(/\r+$/, "");
    return text.slice(text.lastIndexOf("\r") + 1);
}

// [{text, style}]: style is null or {fg, bg, bold, dim, italic, underline, inverse}; a colour is a name or "r,g,b".
export function parse(line) {
    const text = overwritten(line);
    const parts = [];
    let style = {};
    let from = 0;
    const push = to => {
        const part = text.slice(from, to).replace(UNSEEN, "");
        if (part) parts.push({text: part, style: Object.keys(style).length > 0 ? style : null});
    };
    if (text.includes("\x1b")) {
        for (const found of text.matchAll(SEQUENCE)) {
            push(found.index);
            from = found.index + found[0].length;
            if (found[2] === "m") style = after(style, found[1]);
        }
    }
    push(text.length);
    return parts;
}

// The line as it reads, which is what the server searches.
export function plain(line) {
    return parse(line).map(part => part.text).join("");
}

function after(style, codes) {
    const next = {...style};
    // Colons stand for semicolons in colours (ISO 8613-6).
    const list = codes.split(/[;:]/).map(code => code === "" ? 0 : Number(code));
    for (let at = 0; at < list.length; at += 1) {
        const code = list[at];
        if (code === 0) for (const key of Object.keys(next)) delete next[key];
        else if (code === 1) next.bold = true;
        else if (code === 2) next.dim = true;
        else if (code === 3) next.italic = true;
        else if (code === 4) next.underline = true;
        else if (code === 7) next.inverse = true;
        else if (code === 22) { delete next.bold; delete next.dim; }
        else if (code === 23) delete next.italic;
        else if (code === 24) delete next.underline;
        else if (code === 27) delete next.inverse;
        else if (code >= 30 && code <= 37) next.fg = NAMES[code - 30];
        else if (code === 39) delete next.fg;
        else if (code >= 40 && code <= 47) next.bg = NAMES[code - 40];
        else if (code === 49) delete next.bg;
        else if (code >= 90 && code <= 97) next.fg = `b${NAMES[code - 90]}`;
        else if (code >= 100 && code <= 107) next.bg = `b${NAMES[code - 100]}`;
        else if (code === 38 || code === 48) {
            const [colour, taken] = extended(list.slice(at + 1));
            at += taken;
            if (colour) next[code === 38 ? "fg" : "bg"] = colour;
        }
    }
    return next;
}

// The colour after 38 or 48, and how many numbers it took.
function extended([kind, ...rest]) {
    const byte = value => Number.isInteger(value) && value >= 0 && value <= 255;
    if (kind === 5 && byte(rest[0])) return [indexed(rest[0]), 2];
    if (kind === 2 && rest.slice(0, 3).every(byte) && rest.length >= 3) return [rest.slice(0, 3).join(), 4];
    return [null, kind === 2 ? 4 : kind === 5 ? 2 : 1];
}

// Of 256: 16 that have names, a cube of 6 × 6 × 6, and 24 greys.
function indexed(index) {
    if (index < 8) return NAMES[index];
    if (index < 16) return `b${NAMES[index - 8]}`;
    if (index >= 232) return Array(3).fill(8 + 10 * (index - 232)).join();
    const level = step => step === 0 ? 0 : 55 + 40 * step;
    const cube = index - 16;
    return [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map(level).join();
}

// Puts a part into the page.
export function draw(part) {
    const span = document.createElement("span");
    span.textContent = part.text;
    const style = part.style;
    if (!style) return span;
    for (const key of ["bold", "dim", "italic", "underline", "inverse"]) if (style[key]) span.classList.add(`a-${key}`);
    for (const [key, name] of [["fg", "--c"], ["bg", "--b"]]) {
        const colour = style[key];
        if (!colour) continue;
        span.classList.add(`a-${key}`);
        const value = colour.includes(",") ? `rgb(${colour})` : `var(--ansi-${colour})`;
        span.style.setProperty(name, value);
        if (colour.includes(",")) span.classList.add(`a-${key}-any`);
    }
    return span;
}
