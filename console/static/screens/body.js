// Shows the body of an entry: as it came, as a tree, and byte by byte. All places are counted in bytes, as the edge counts them.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from '../ui.js';
import { visible } from '../text.js';
import { number, size, t } from '../words.js';

/** @typedef {import('../../types/api').Mark} Mark */

const piece = 4096; // bytes that are drawn at once, about
const whole = 8; // pieces of a body that is shown as a whole
const around = 2; // pieces on either side of a mark otherwise
const step = 8; // pieces more

/** Returns the bytes of a body. @param {{body?: string, body_base64?: string}} answer */
export const bytesOf = ({ body, body_base64: text }) =>
	text ? Uint8Array.from(atob(text), (c) => c.charCodeAt(0)) : new TextEncoder().encode(body ?? '');

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** Spells out what cannot be seen, but for the ends of lines and tabs. @param {string} text */
const spelled = (text) => text.split(/([\n\t])/).map((part, i) => (i % 2 ? part : visible(part))).join('');

/** Returns the first place from here on that is not within a character. @param {Uint8Array} bytes @param {number} at */
function between(bytes, at) {
	for (let i = 0; i < 3 && at < bytes.length && (bytes[at] & 0xc0) === 0x80; i++) at++;
	return Math.min(at, bytes.length);
}

/** Returns where pieces begin: those of text behind the end of a line, if there is one. @param {Uint8Array} bytes @param {number} length */
function pieces(bytes, length) {
	const starts = [0];
	for (let at = length; at < bytes.length; at += length) {
		const line = length < piece ? -1 : bytes.subarray(at - 512, at).lastIndexOf(10);
		const start = length < piece ? at : line < 0 ? between(bytes, at) : at - 512 + line + 1;
		if (start < bytes.length) starts.push(start);
	}
	return [...starts, bytes.length];
}

/** Cuts a range where marks begin and end. The shortest mark over a part is its own.
 * @param {Mark[]} marks @param {number} from @param {number} to @returns {{from: number, to: number, mark?: Mark}[]} */
function cut(marks, from, to) {
	const here = marks.filter((m) => m.start < to && m.end > from);
	const ends = [...new Set([from, to, ...here.flatMap((m) => [m.start, m.end])])].filter((at) => at >= from && at <= to).sort((a, b) => a - b);
	return ends.slice(1).map((end, i) => ({
		from: ends[i], to: end,
		mark: here.filter((m) => m.start <= ends[i] && m.end >= end).sort((a, b) => a.end - a.start - (b.end - b.start))[0],
	}));
}

/** Scrolls to the first mark, and the page no further than it must. @param {HTMLElement | null} box */
function toMark(box) {
	const mark = box?.querySelector('mark, .hurt');
	if (!box || !mark) return;
	box.scrollTop += mark.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 2;
	mark.scrollIntoView({ block: 'nearest', inline: 'nearest' });
}

/** @param {Mark} m */
const says = (m) => visible(m.cause ?? `${m.pointer || '/'} ${m.keyword}`);

/** @param {{bytes: Uint8Array, marks: Mark[], from: number, to: number, draw: (bytes: Uint8Array) => string}} props */
const Marked = ({ bytes, marks, from, to, draw }) => cut(marks, from, to).map((part) => {
	const text = draw(bytes.subarray(part.from, part.to));
	return part.mark ? html`<mark class=${part.mark.missing ? 'missing' : ''} title=${says(part.mark)}>${text}</mark>` : text;
});

/** Pieces of a body, those around the first mark at first.
 * @param {{bytes: Uint8Array, marks: Mark[], length: number, draw: (from: number, to: number) => unknown, kind: string}} props */
function Pieces({ bytes, marks, length, draw, kind }) {
	const starts = useMemo(() => pieces(bytes, length), [bytes, length]);
	const last = starts.length - 1;
	const [[from, to], show] = useState(() => {
		const at = starts.findIndex((start, i) => i === last - 1 || starts[i + 1] > (marks[0]?.start ?? 0));
		return last <= whole ? [0, last] : [Math.max(0, at - around), Math.min(last, at + around + 1)];
	});
	const [all, setAll] = useState(false);
	const box = useRef(/** @type {HTMLElement | null} */ (null));
	const more = () => show(([a, b]) => [Math.max(0, a - step), Math.min(last, b + step)]);
	useLayoutEffect(() => toMark(box.current), []);
	useEffect(() => {
		if (!all || (from === 0 && to === last)) return;
		const frame = requestAnimationFrame(more);
		return () => cancelAnimationFrame(frame);
	}, [all, from, to]);
	const drawn = useRef(/** @type {Map<number, unknown>} */ (new Map())); // a piece never changes
	const shown = [];
	for (let i = from; i < to; i++) {
		if (!drawn.current.has(i)) drawn.current.set(i, html`<span class="piece" key=${i}>${draw(starts[i], starts[i + 1])}</span>`);
		shown.push(drawn.current.get(i));
	}
	const part = from > 0 || to < last;
	return html`<pre class=${'body ' + kind} ref=${box} dir="ltr" tabindex="0" role="region" aria-label=${t('body')}>${from > 0 && html`<span class="piece cut">…</span>`}${shown}${to < last && html`<span class="piece cut">…</span>`}</pre>
		${part && html`<p class="tail">${t('body.part', { from: starts[from], to: starts[to], of: size(bytes.length) })}
			<button type="button" data-act="more" onClick=${more}>${t('body.more')}</button><button type="button" data-act="whole" onClick=${() => setAll(true)}>${t('body.all')}</button></p>`}`;
}

/** @param {{bytes: Uint8Array, marks: Mark[]}} props */
const Raw = ({ bytes, marks }) => html`<${Pieces} kind="raw" bytes=${bytes} marks=${marks} length=${piece} draw=${(/** @type {number} */ from, /** @type {number} */ to) =>
	Marked({ bytes, marks, from, to, draw: (part) => spelled(decoder.decode(part)) })} />`;

/** @param {{bytes: Uint8Array, marks: Mark[]}} props */
function Hex({ bytes, marks }) {
	const line = (/** @type {number} */ from, /** @type {number} */ to) => {
		const draw = (/** @type {(byte: number) => string} */ of) => Marked({ bytes, marks, from, to, draw: (part) => Array.from(part, of).join('') });
		return [from.toString(16).padStart(8, '0') + '  ', ...draw((b) => b.toString(16).padStart(2, '0') + ' '), ' '.repeat(1 + 3 * (from + 16 - to)), ...draw((b) => (b > 31 && b < 127 ? String.fromCharCode(b) : '·')), '\n'];
	};
	return html`<${Pieces} kind="hex" bytes=${bytes} marks=${marks} length=${piece / 2} draw=${(/** @type {number} */ from, /** @type {number} */ to) => {
		/** @type {unknown[]} */
		const parts = [];
		for (let at = from; at < to; at += 16)
			for (const part of line(at, Math.min(at + 16, to))) parts.push(typeof part === 'string' && typeof parts.at(-1) === 'string' ? parts.pop() + part : part);
		return parts;
	}} />`;
}

/** A number as it was written: it may have more digits than a number of ours. */
class Figure {
	/** @param {string} text */
	constructor(text) {
		this.text = text;
	}
}

/** Returns what a body says, undefined if it is no JSON. @param {Uint8Array} bytes */
function parsed(bytes) {
	try {
		const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
		// @ts-ignore: not every browser gives the source
		return JSON.parse(text, (_, value, at) => (typeof value === 'number' ? new Figure(at?.source ?? String(value)) : value));
	} catch {
		return undefined;
	}
}

const most = 100; // members that are drawn at once
const longest = 600;

/** @param {{name: string, value: any, path: string, marks: Mark[], open: boolean}} props */
function Node({ name, value, path, marks, open }) {
	const hurt = marks.filter((m) => m.pointer !== undefined && (m.pointer === path || m.pointer.startsWith(path + '/')));
	const own = hurt.find((m) => m.pointer === path);
	const [is, set] = useState(open || hurt.length > 0);
	const [count, more] = useState(most);
	const label = name && html`<span class="name">${visible(name)}</span>: `;
	if (value === null || typeof value !== 'object' || value instanceof Figure) {
		const text = value instanceof Figure ? value.text : JSON.stringify(value);
		const shown = html`<bdi>${visible(text.slice(0, longest)) + (text.length > longest ? ' … ' + size(text.length) : '')}</bdi>`;
		return html`<li>${label}${own ? html`<mark title=${says(own)}>${shown}</mark>` : shown}${own && html` <small>${says(own)}</small>`}</li>`;
	}
	const members = Object.entries(value);
	const lost = hurt.find((m) => m.missing && !members.some(([key]) => (m.pointer + '/').startsWith(path + '/' + escaped(key) + '/')));
	const brackets = Array.isArray(value) ? '[]' : '{}';
	const toggle = (/** @type {any} */ e) => e.target === e.currentTarget && set(e.target.open);
	return html`<li><details open=${is} onToggle=${toggle}><summary>${label}${own ? html`<mark>${brackets}</mark>` : brackets} <small>${number(members.length)}</small>${(own ?? lost) && html` <small class="hurt">${says(/** @type {Mark} */ (own ?? lost))}</small>`}</summary>
		${is && html`<ul>${members.slice(0, count).map(([key, one]) => html`<${Node} key=${key} name=${key} value=${one} path=${path + '/' + escaped(key)} marks=${hurt} open=${false} />`)}
			${members.length > count && html`<li><button type="button" onClick=${() => more(count + 10 * most)}>${t('body.more')}</button></li>`}</ul>`}</details></li>`;
}

/** @param {string} key */
const escaped = (key) => key.replaceAll('~', '~0').replaceAll('/', '~1');

/** @param {{value: unknown, marks: Mark[]}} props */
function Tree({ value, marks }) {
	const box = useRef(/** @type {HTMLElement | null} */ (null));
	useLayoutEffect(() => toMark(box.current), []);
	return html`<div class="body" ref=${box} dir="ltr" tabindex="0" role="region" aria-label=${t('body')}><ul class="tree"><${Node} name="" value=${value} path="" marks=${marks} open=${true} /></ul></div>`;
}

/** @param {{bytes: Uint8Array, marks: Mark[], text: boolean, malformed: boolean}} props text says that it is UTF-8 */
export function Body({ bytes, marks: given, text, malformed }) {
	const [view, set] = useState('raw');
	// What is missing at the end is marked at the last character.
	const marks = useMemo(() => given.map((m) => ({ ...m, start: m.start < bytes.length ? m.start : bytes.findLastIndex((b) => (b & 0xc0) !== 0x80), end: text ? between(bytes, m.end) : m.end })).sort((a, b) => a.start - b.start), [bytes, given]);
	const value = useMemo(() => (malformed || !text ? undefined : parsed(bytes)), [bytes]);
	const views = ['raw', ...(value === undefined ? [] : ['tree']), 'hex'];
	return html`<div class="views" role="group" aria-label=${t('body')}>${views.map((name) => html`<button type="button" key=${name} data-view=${name} aria-pressed=${name === view} onClick=${() => set(name)}>${t(`view.${name}`)}</button>`)}
		<span class="quiet">${size(bytes.length)}${text ? '' : ' · ' + t('body.binary')}</span></div>
		${view === 'tree' ? html`<${Tree} value=${value} marks=${marks} />` : html`<${view === 'raw' ? Raw : Hex} key=${view} bytes=${bytes} marks=${marks} />`}
		${view === 'raw' && !text && html`<${Hex} bytes=${bytes} marks=${marks} />`}`;
}
