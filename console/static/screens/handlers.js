// All handlers in one dense table: what state each is in, and why.
import { html, useNow } from '../ui.js';
import { Spark } from '../chart.js';
import { fails } from '../findings.js';
import { Empty, Reason, Screen, State, ago } from '../parts.js';
import { filter } from '../route.js';
import { status } from '../status.js';
import { Table } from '../table.js';
import { Value } from '../text.js';
import { duration, latency, number, t } from '../words.js';

/** @typedef {import('../../types/api').Upstream} Upstream */
/** @typedef {{block: import('../../types/api').Block, up: Upstream}} One */

const lately = 300_000; // how long a fault is shown

/** @param {import('../../types/api').Status} s @returns {One[]} */
export const upstreams = (s) => (s.blocks ?? []).flatMap((block) => (block.upstreams ?? []).map((up) => ({ block, up })));

/** Says how what comes gets to the handlers of a block. @param {import('../../types/api').Block} block */
export const wayOf = (block) => (block.queued ? t('delivery.queued', { way: t(`delivery.${block.delivery}`) }) : t(`delivery.${block.delivery}`));

/** @param {Upstream} up @param {number} at @returns {'well'|'warn'|'bad'|'off'} */
function level(up, at) {
	if (Date.parse(up.until ?? '') > at || !up.healthy || fails(up, at)) return 'bad';
	if (up.last_fault && at - Date.parse(up.last_fault.at) < lately) return 'warn';
	return up.last_asked ? 'well' : 'off';
}

/** What state a handler is in. @param {{up: Upstream, at: number}} props */
export function HandlerState({ up, at }) {
	const left = Date.parse(up.until ?? '') - at;
	let text = up.last_asked ? t('handler.well') : t('handler.idle');
	if (left > 0) text = t('handler.left', { for: duration(left) });
	else if (!up.healthy) text = t('handler.ill');
	else if (up.last_fault && (fails(up, at) || at - Date.parse(up.last_fault.at) < lately)) {
		const what = up.last_fault.status ? String(up.last_fault.status) : up.last_fault.reason;
		text = fails(up, at) ? t('handler.failing', { what }) : t('handler.failed', { what, ago: duration(at - Date.parse(up.last_fault.at)) });
	}
	return html`<${State} level=${level(up, at)}>${text}${left > 0 && up.why ? html` <${Reason} of=${up.why} />` : ''}<//>`;
}

/** @param {Upstream} up */
const notTaken = (up) => Object.entries(up.not_taken ?? {}).sort(([, a], [, b]) => b - a).map(([reason, n]) => html`<span class="pair" key=${reason}><${Reason} of=${reason} /> ${number(n)}</span>`);

/** @param {Upstream} up */
function fault(up) {
	if (!up.last_fault) return '–';
	const { status: code, error, reason, at } = up.last_fault;
	return html`<${Value} of=${[code || '', error || (code ? '' : reason)].filter(Boolean).join(' ')} /> <small title=${at}>${ago(at)}</small>`;
}

/** @param {{params: URLSearchParams}} props */
export default function Handlers({ params }) {
	const { data } = status.use();
	const at = useNow();
	const name = t('nav.handlers');
	if (!data) return html`<${Screen} name="handlers" title=${name} />`;
	const wanted = params.get('handler') ?? '';
	const all = upstreams(data);
	const rows = all.filter(({ up }) => up.address.includes(wanted));
	const limits = Math.max(0, ...all.map(({ up }) => (up.limit ? number(up.limit).length + 3 : 0))); // so that the numbers stand below each other
	/** @type {import('../table.js').Column<One>[]} */
	const columns = [
		{ key: 'address', label: t('col.handler'), kind: 'stays', cell: ({ up }) => html`<${Value} of=${up.address} />` },
		{ key: 'state', label: t('col.state'), cell: ({ up }) => html`<${HandlerState} up=${up} at=${at} />` },
		{ key: 'block', label: t('col.block'), cell: ({ block }) => html`<${Value} of=${block.name} />` },
		{ key: 'hand', label: t(limits ? 'col.in_hand.limit' : 'col.in_hand'), kind: 'num', cell: ({ up }) => html`${number(up.limit ? up.num_requests : up.in_hand)}${limits > 0 && html`<span class="of" style=${{ inlineSize: limits + 'ch' }}>${up.limit ? ' / ' + number(up.limit) : ''}</span>`}` }, // the limit is one over all blocks
		{ key: 'taken', label: t('col.taken'), kind: 'num', cell: ({ up }) => number(up.taken) },
		{ key: 'not', label: t('col.not_taken'), cell: ({ up }) => notTaken(up) },
		{ key: 'fault', label: t('col.fault'), kind: 'grow', cell: ({ up }) => fault(up) },
		{ key: 'p50', label: 'p50', kind: 'num', cell: ({ up }) => latency(up.p50_ms) },
		{ key: 'p99', label: 'p99', kind: 'num', cell: ({ up }) => latency(up.p99_ms) },
		{ key: 'trend', label: t('chart'), cell: ({ up }) => html`<${Spark} trend=${up.trend} />` },
	];
	const others = (data.blocks ?? []).filter((block) => !block.upstreams?.length || block.why);
	return html`<${Screen} name="handlers" title=${name} state=${all.length ? 'ready' : 'empty'} tools=${all.length > 0 && html`<${Search} label=${t('col.handler')} name="handler" value=${wanted} />`}>
		${rows.length ? html`<${Table} caption=${name} columns=${columns} rows=${rows} id=${(/** @type {One} */ { block, up }) => (data.blocks?.length === 1 ? up.address : block.name + ' ' + up.address)} mark=${(/** @type {One} */ { up }) => 'is-' + level(up, at)} />`
			: html`<${Empty} title=${t(all.length ? 'live.nomatch' : 'handlers.none')}><p>${all.length ? '' : t('handlers.none.next')}</p><//>`}
		${others.map((block) => html`<p class="quiet" key=${block.name}><${Value} of=${block.name} />: ${wayOf(block)} ${block.why && html`(<${Value} of=${block.why} />)`}</p>`)}
		<p class="quiet">${t('handlers.five')}</p>
	<//>`;
}

/** A filter by a part of a name. @param {{label: string, name: string, value: string}} props */
export const Search = ({ label, name, value }) =>
	html`<input type="search" aria-label=${label} placeholder=${label} value=${value} onInput=${(/** @type {any} */ e) => filter({ [name]: e.target.value.trim() })} />`;
