// All instances that were seen: those that stand still first, then those that cannot be received, are refused or silent, then the others.
import { html, useNow } from '../ui.js';
import { link, nextTry, why } from '../findings.js';
import { Command, Empty, Outcome, Reason, Screen, State } from '../parts.js';
import { status } from '../status.js';
import { Table } from '../table.js';
import { Value } from '../text.js';
import { Time, duration, number, t } from '../words.js';
import { Search } from './handlers.js';

const most = 500;

/**
 * @typedef {{id: string, seen?: import('../../types/api').Instance, standing: import('../../types/api').Standing[], receiver?: import('../../types/api').Receiver, refused?: import('../../types/api').Refusal, silent?: string}} One
 */

/** @param {import('../../types/api').Status} s @returns {One[]} */
function all(s) {
	/** @type {Map<string, One>} */
	const found = new Map();
	const of = (/** @type {string} */ id) => {
		const one = found.get(id) ?? { id, standing: [] };
		found.set(id, one);
		return one;
	};
	for (const one of s.standing ?? []) of(one.instance).standing.push(one);
	for (const one of s.receivers ?? []) of(one.instance).receiver = one;
	for (const one of s.refused ?? []) of(one.instance).refused = one;
	for (const one of s.silent ?? []) of(one.instance).silent = one.since;
	for (const one of s.instances ?? []) of(one.instance).seen = one;
	return [...found.values()].sort((a, b) => rank(a) - rank(b) || (b.seen?.last ?? '').localeCompare(a.seen?.last ?? '') || a.id.localeCompare(b.id));
}

/** @param {One} one */
const rank = (one) => (one.standing.length ? 0 : one.receiver?.state === 'failing' ? 1 : one.refused?.known ? 2 : one.refused || one.silent ? 3 : 4);

/** @param {One} one @param {number} at */
function state({ standing: [one], receiver, refused, silent }, at) {
	if (one) return html`<${State} level="bad">${t('stands.state', { for: duration(at - Date.parse(one.since)) })}<//>`;
	if (receiver?.state === 'failing') return html`<${State} level="bad">${t('receiver.failing')} <${Reason} of=${receiver.reason} /><//>`;
	if (refused) return html`<${State} level=${refused.known ? 'bad' : 'warn'}>${t(refused.known ? 'instance.refused' : 'instance.unlisted')} <${Reason} of=${refused.reason} /><//>`;
	if (silent) return html`<${State} level="warn">${t('instance.silent', { for: duration(at - Date.parse(silent)) })}<//>`;
	if (receiver) return html`<${State} level=${receiver.state === 'receiving' ? 'well' : 'off'}>${t(`receiver.${receiver.state}`)}<//>`;
	return html`<${State} level="well">${t('handler.well')}<//>`;
}

/** @param {One} one @param {number} at */
const because = ({ standing, refused }, at) => [...standing.map((one) => html`<div class="because" key=${one.name + one.lane}>${why(one)} <small>${[t('attempts', { n: one.attempts }), nextTry(one, at)].filter(Boolean).join(' · ')}</small></div>`),
	refused && html`<div class="because">${t('reason.' + refused.reason)} <small>${[t('stands.for', { for: duration(at - Date.parse(refused.since)) }), t('instance.last', { ago: duration(at - Date.parse(refused.at)) })].join(' · ')}</small></div>`];

/** @param {One} one */
const ends = ({ seen }) => Object.entries(seen?.outcomes ?? {}).map(([end, n]) => html`<span class="pair" key=${end}><${Outcome} of=${end} /> <b>${number(n)}</b></span>`);

/** @param {{params: URLSearchParams}} props */
export default function Instances({ params }) {
	const { data } = status.use();
	const at = useNow();
	const name = t('nav.instances');
	if (!data) return html`<${Screen} name="instances" title=${name} />`;
	const wanted = params.get('instance') ?? '';
	const known = all(data);
	const rows = known.filter((one) => one.id.includes(wanted));
	const trouble = known.some((one) => one.standing.length || one.refused);
	const columns = /** @type {import('../table.js').Column<One>[]} */ ([
		{ key: 'id', label: t('col.instance'), kind: 'stays', cell: (one) => html`<a href=${link('quarantine', { instance: one.id })} title=${t('link.quarantine.of')}><${Value} of=${one.id} /></a>` },
		{ key: 'state', label: t('col.state'), cell: (one) => state(one, at) },
		{ key: 'why', label: t('col.why'), kind: 'grow', cell: (one) => because(one, at) },
		{ key: 'ends', label: t('col.counts'), cell: ends },
		{ key: 'last', label: t('col.last'), kind: 'num', cell: (one) => (one.seen ? html`<${Time} at=${one.seen.last} seconds />` : '–') },
	]).filter(({ key }) => key !== 'why' || trouble);
	return html`<${Screen} name="instances" title=${name} state=${known.length ? 'ready' : 'empty'} tools=${known.length > 0 && html`<span class="quiet">${rows.length > most ? t('shown.of', { shown: most, of: rows.length }) : t('instances', { n: rows.length })}</span><${Search} label=${t('col.instance')} name="instance" value=${wanted} />`}>
		${rows.length ? html`<${Table} caption=${name} columns=${columns} rows=${rows.slice(0, most)} id=${(/** @type {One} */ one) => one.id} mark=${(/** @type {One} */ one) => ['is-bad', 'is-bad', 'is-bad', 'is-warn', ''][rank(one)]} />`
			: html`<${Empty} title=${t(known.length ? 'live.nomatch' : 'instances.none')}>${known.length ? '' : html`<a href="#/overview">${t('live.none.next')}</a>`}<//>`}
		${rows.length === 1 && html`<${Command} of=${`caddy green-api quarantine list --instance ${/^\d+$/.test(rows[0].id) ? rows[0].id : 'ID'}`} />`}
	<//>`;
}
