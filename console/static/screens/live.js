// What ends, as it ends: the newest first, with filters and a pause.
import { html, useEffect, useMemo, useRef, useState } from '../ui.js';
import { useKey } from '../keys.js';
import { live } from '../live.js';
import { Empty, Outcome, Reason, Screen } from '../parts.js';
import { filter, go } from '../route.js';
import { Table } from '../table.js';
import { Code, Value, visible } from '../text.js';
import { outcomes } from '../chart.js';
import { Time, duration, latency, t, words } from '../words.js';

/** @typedef {import('../../types/api').Row} Row */

const most = 500;
const rowHeight = 29;

/** How many rows fill the window as far as it is scrolled. They begin below its top, so that some are out of sight: all others would cost time four times a second. */
const inReach = () => Math.ceil((window.scrollY + window.innerHeight) / rowHeight);
const names = ['outcome', 'type', 'instance', 'handler'];

/** @type {() => import('../table.js').Column<Row>[]} */
const columns = () => [
	{ key: 'at', label: t('col.time'), kind: 'time', cell: (r) => html`<${Time} at=${r.at} seconds />` },
	{ key: 'outcome', label: t('col.outcome'), cell: (r) => html`<${Outcome} of=${r.outcome} />` },
	{ key: 'instance', label: t('col.instance'), cell: (r) => html`<${Value} of=${r.instance || r.client_ip || '–'} />` },
	{ key: 'type', label: t('col.type'), kind: 'minor', cell: (r) => html`<${Value} of=${r.type || '–'} />` },
	{ key: 'why', label: t('col.why'), kind: 'grow', cell: why },
	{ key: 'handler', label: t('col.handler'), kind: 'minor', cell: (r) => html`<${Value} of=${r.handler || '–'} />` },
	{ key: 'ms', label: t('col.took'), kind: 'num', cell: (r) => latency(r.ms) },
	{ key: 'age', label: t('col.age'), kind: 'num minor', cell: (r) => (r.age ? duration(r.age * 1000) : '') },
];

/** @param {Row} r */
function why(r) {
	if (!r.reason) return '';
	const rule = r.pointer === undefined ? '' : html` <${Code} of=${(r.pointer || '/') + ' ' + r.keyword} />`;
	return html`<${Reason} of=${r.reason} />${rule}${r.quarantine_id && html` <a href=${'#/quarantine/' + encodeURIComponent(r.quarantine_id)}>${t('see')}</a>`}`;
}

/** @param {{params: URLSearchParams}} props */
export default function Live({ params }) {
	const seen = live.use();
	const [held, hold] = useState(/** @type {Row[] | null} */ (null));
	const [resting, rest] = useState(false);
	const [reach, setReach] = useState(inReach);
	const frozen = useRef(/** @type {Row[]} */ ([]));
	const box = useRef(/** @type {HTMLElement | null} */ (null));
	/** Whether somebody reads: then no row may take the place of another. */
	const holds = () => window.scrollY > 120 || Boolean(box.current?.matches(':hover') || box.current?.contains(document.activeElement));
	const settle = (/** @type {any} */ e) => setTimeout(() => rest(holds()), e.pointerType === 'touch' ? 400 : 0); // a click comes after the finger has left
	if (!resting) frozen.current = seen.rows;
	const rows = held ?? (resting ? frozen.current : seen.rows);
	const toggle = () => hold((old) => (old ? null : rows)); // a second key may come before this is drawn again
	useKey(' ', toggle);
	useEffect(() => {
		const scrolled = () => {
			rest(holds());
			setReach((old) => (window.scrollY > 120 ? Math.max(old, inReach()) : inReach()));
		};
		const events = ['scroll', 'resize'];
		for (const event of events) window.addEventListener(event, scrolled, { passive: true });
		return () => events.forEach((event) => window.removeEventListener(event, scrolled));
	}, []);
	const wanted = names.map((name) => params.get(name) ?? '');
	const shown = useMemo(() => rows.filter((r) => fits(r, wanted)).slice(0, held ? most : Math.min(most, reach)), [rows, held, reach, ...wanted]);
	const drawn = useMemo(columns, [words.use()]);
	const news = rows === seen.rows ? 0 : seen.rows.findIndex((r) => r === rows[0]);
	const open = (/** @type {Row} */ r) => r.quarantine_id && go('#/quarantine/' + encodeURIComponent(r.quarantine_id));
	const kept = rows.length ? 'ready' : 'empty';
	return html`<${Screen} name="live" title=${t('nav.live')} state=${kept} tools=${html`<${Pace} paused=${Boolean(held)} resting=${resting} news=${news < 0 ? seen.rows.length : news} seen=${seen} toggle=${toggle} />`}>
		<${Filters} rows=${rows} params=${params} />
		${shown.length ? html`<div ref=${box} onPointerEnter=${() => rest(true)} onPointerLeave=${settle} onFocusIn=${() => rest(true)} onFocusOut=${settle}>
			<${Table} moving caption=${t('nav.live')} columns=${drawn} rows=${shown} id=${(/** @type {Row} */ r) => r.seq} open=${open} mark=${(/** @type {Row} */ r) => 'end-' + r.outcome} /></div>`
			: html`<${Empty} title=${t(rows.length ? 'live.nomatch' : 'live.none')}>${rows.length ? html`<button type="button" onClick=${() => filter({ outcome: '', type: '', instance: '', handler: '' })}>${t('filter.clear')}</button>` : html`<a href="#/overview">${t('live.none.next')}</a>`}<//>`}
	<//>`;
}

/** @param {Row} r @param {string[]} wanted */
function fits(r, [outcome, type, instance, handler]) {
	return (!outcome || r.outcome === outcome) && (!type || r.type === type) && (!instance || (r.instance ?? '').includes(instance)) && (!handler || r.handler === handler);
}

/** @param {{rows: Row[], params: URLSearchParams}} props */
function Filters({ rows, params }) {
	const [types, handlers] = useMemo(() => {
		const all = (/** @type {(r: Row) => string} */ of) => [...new Set(rows.map(of))].filter(Boolean).sort();
		return [all((r) => r.type), all((r) => r.handler ?? '')];
	}, [Math.floor((rows[0]?.at ?? 0) / 2000)]);
	return html`<form class="filters" onSubmit=${(/** @type {Event} */ e) => e.preventDefault()}>
		<${Select} name="outcome" params=${params} options=${outcomes.map((end) => [end, t(`outcome.${end}`)])} />
		<${Select} name="type" params=${params} options=${types.map((type) => [type, visible(type)])} />
		<${Select} name="handler" params=${params} options=${handlers.map((handler) => [handler, visible(handler)])} />
		<input type="search" aria-label=${t('col.instance')} placeholder=${t('col.instance')} value=${params.get('instance') ?? ''} onInput=${(/** @type {any} */ e) => filter({ instance: e.target.value.trim() })} />
	</form>`;
}

/** A filter with a few values. @param {{name: string, params: URLSearchParams, options: string[][]}} props */
export function Select({ name, params, options }) {
	const value = params.get(name) ?? '';
	const all = value && !options.some(([one]) => one === value) ? [[value, visible(value)], ...options] : options;
	return html`<select name=${name} aria-label=${t(`col.${name}`)} value=${value} onChange=${(/** @type {any} */ e) => filter({ [name]: e.target.value })}>
		<option value="">${t(`col.${name}`)}: ${t('all')}</option>${all.map(([one, text]) => html`<option value=${one} key=${one} selected=${one === value}>${text}</option>`)}</select>`;
}

/** @param {{paused: boolean, resting: boolean, news: number, seen: ReturnType<typeof live.get>, toggle: () => void}} props */
function Pace({ paused, resting, news, seen, toggle }) {
	const sampled = seen.of > seen.shown ? t('live.sampled', { shown: seen.shown, of: seen.of }) : seen.gap ? t('live.gap') : '';
	return html`<span class="pace">${paused || (resting && news) ? t(paused ? 'live.paused' : 'live.resting', { n: news }) : sampled}</span>
		<button type="button" data-act="pause" aria-pressed=${paused} title=${t('keys.pause')} onClick=${toggle}>${t(paused ? 'live.resume' : 'live.pause')}</button>`;
}
