// The queue: its lanes, the one that has waited longest first, and the orders that the operator may give.
import { askJSON, askLines } from '../api.js';
import { html, useEffect, useNow, useState } from '../ui.js';
import { useKey } from '../keys.js';
import { Dialog, Empty, Meter, Reason, Screen, State } from '../parts.js';
import { filter, go } from '../route.js';
import { refresh, status } from '../status.js';
import { Table } from '../table.js';
import { Code, Value, visible } from '../text.js';
import { Time, duration, number, size, t, tx } from '../words.js';
import { Head, Problem, RowLink, place, said, useAsked, useReturn } from './beside.js';

/** @typedef {import('../../types/api').Lane} Lane */
/** @typedef {import('../../types/api').QueueEntry} QueueEntry */
/** @typedef {import('../../types/api').QueueState} QueueState */
/** @typedef {(what: 'pause'|'resume'|'drain'|'retry'|'skip', form?: {[name: string]: string}) => Promise<void>} Order */

const page = 100;
const mostEntries = 50;
const newsLast = 10_000; // how long it is said what was done
const levels = /** @type {const} */ ({ ready: 'well', delivering: 'well', waiting: 'warn', paused: 'off', no_handler: 'warn' });
const example = 'green_api /green-api/webhook* {\n\tqueue {\n\t\tkey chat\n\t}\n\treverse_proxy 127.0.0.1:9001\n}';

/** @param {Lane} lane */
const stateOf = (lane) => html`<${State} level=${levels[lane.state] ?? 'warn'}>${t(`lane.${lane.state}`)}<//>`;

/** @param {Lane} lane @param {number} at */
function why(lane, at) {
	const { round, next, reason, answer } = lane;
	const when = next && Date.parse(next) > at ? t('next.in', { in: duration(Date.parse(next) - at) }) : '';
	return html`${reason && html`<${Reason} of=${reason} /> `}${answer && html`<${Value} of=${[answer.handler, answer.status || '', answer.text || answer.error || ''].filter(Boolean).join(' ')} /> `}
		<small>${[round ? t('lane.rounds', { n: round }) : '', when].filter(Boolean).join(' · ')}</small>`;
}

/** Says what an order has done. Other orders than retry are answered by the state of the queue. @param {string} what @param {{[name: string]: string}} form @param {{lanes: number}} done */
function did(what, form, done) {
	if (what === 'retry') return t('queue.retried', { n: done.lanes });
	const some = form.name || form.instance;
	return form.off ? t('did.fill') : t(`did.${what}${some ? '.some' : ''}`, { what: visible(some) });
}

/** @param {{rest: string, params: URLSearchParams, me: import('../../types/api').Me | null}} props */
export default function Queue({ rest, params, me }) {
	const [limit, setLimit] = useState(page);
	const [problem, fail] = useState('');
	const [dialog, show] = useState(/** @type {'' | 'drain' | 'skip'} */ (''));
	const [news, tell] = useState({ text: '' });
	const at = useNow();
	const instance = params.get('instance') ?? '';
	const { data: edge } = status.use();
	const is = Boolean(edge?.queue); // what is not there is not asked for
	const { data, error } = useAsked(async (signal) => {
		if (!is) return null;
		const query = new URLSearchParams({ limit: String(limit + 1), ...(instance && { instance }) });
		const [state, lanes] = await Promise.all([askJSON('queue/state', { signal }), askLines('queue?' + query, { signal })]);
		return { state: /** @type {QueueState} */ (state), lanes: /** @type {Lane[]} */ (lanes) };
	}, is + ' ' + limit + instance);
	const lane = useAsked((signal) => (rest && is ? askLines(`queue/${encodeURIComponent(rest)}?limit=${mostEntries}`, { signal }) : Promise.resolve([])), is + rest);
	const close = () => rest && go(place('queue', '', params));
	useReturn(rest, data);
	useKey('Escape', close);

	useEffect(() => {
		const timer = setTimeout(tell, newsLast, { text: '' });
		return () => clearTimeout(timer);
	}, [news]);
	/** @type {Order} */
	const order = async (what, form = {}) => {
		try {
			const [done] = await askLines('queue/' + what, { method: 'POST', form });
			fail('');
			tell({ text: did(what, form, done) });
			refresh();
		} catch (err) {
			fail(said(err));
		}
	};
	const name = t('nav.queue');
	if (edge && (!is || error?.status === 404) && !data) {
		return html`<${Screen} name="queue" title=${name} state="empty"><${Empty} title=${t('queue.none')}><p>${t('queue.none.why')}</p><pre class="sample" dir="ltr" tabindex="0">${example}</pre><//><//>`;
	}
	const operates = me?.role === 'operator';
	const lanes = data?.lanes.slice(0, limit) ?? [];
	/** @type {import('../table.js').Column<Lane>[]} */
	const columns = [
		{ key: 'oldest', label: t('col.oldest'), kind: 'time', cell: (l) => html`<${RowLink} href=${place('queue', l.lane, params)} here=${l.lane === rest}>${duration(at - Date.parse(l.oldest))}<//>` },
		{ key: 'instance', label: t('col.instance'), kind: 'stays', cell: (l) => html`<${Value} of=${l.instance} />` },
		{ key: 'chat', label: t('col.chat'), kind: 'minor', cell: (l) => html`<${Value} of=${l.chat || '–'} />` }, { key: 'block', label: t('col.block'), kind: 'minor', cell: (l) => html`<${Value} of=${l.name} />` },
		{ key: 'entries', label: t('col.entries'), kind: 'num', cell: (l) => html`<span title=${size(l.bytes)}>${number(l.entries)}</span>` },
		{ key: 'state', label: t('col.state'), cell: stateOf },
		{ key: 'why', label: t('col.why'), kind: 'grow minor', cell: (l) => why(l, at) },
	];
	const tools = operates && data && !rest && html`<span class="buttons" data-for="all">
		${data.state.paused.some((one) => !one.name && !one.instance) ? '' : html`<button type="button" data-act="pause" onClick=${() => order('pause')}>${t('queue.pause')}</button>`}
		${(data.state.paused.length > 0 || data.state.draining) && html`<button type="button" class="primary" data-act="resume" title=${t('queue.resume.why')} onClick=${() => order('resume')}>${t('queue.resume')}</button>`}
		${data.state.lanes > 0 && html`<button type="button" data-act="retry" onClick=${() => order('retry', { all: 'true' })}>${t('queue.retry')}</button>`}
		<button type="button" data-act="drain" aria-pressed=${data.state.draining} onClick=${() => (data.state.draining ? order('drain', { off: 'true' }) : show('drain'))}>${t(data.state.draining ? 'queue.drain.off' : 'queue.drain')}</button></span>`;
	const [head, ...entries] = lane.data ?? [];
	return html`<${Screen} name="queue" title=${name} state=${!data ? 'loading' : lanes.length ? 'ready' : 'empty'} tools=${tools}>
		${data && html`<${Held} state=${data.state} operates=${operates} order=${order} />
		<div class="filters"><input type="search" aria-label=${t('col.instance')} placeholder=${t('col.instance')} value=${instance} onChange=${(/** @type {any} */ e) => filter({ instance: e.target.value.trim() })} /><span class="quiet" role="status">${news.text}</span></div>`}
		<${Problem} of=${problem || error?.message} />
		<div class=${'beside' + (rest ? ' has-entry' : '')}>
			<div class="list">${lanes.length > 0 && html`<${Table} caption=${name} columns=${rest ? columns.filter((c) => !c.kind?.includes('minor')) : columns} rows=${lanes} id=${(/** @type {Lane} */ l) => l.lane} open=${(/** @type {Lane} */ l) => go(place('queue', l.lane, params))}
				mark=${(/** @type {Lane} */ l) => (l.lane === rest ? 'is-open ' : '') + (levels[l.state] === 'warn' ? 'is-warn' : '')} />`}
				${data && data.lanes.length > limit && html`<p class="tail"><button type="button" data-act="more" onClick=${() => setLimit(limit + page)}>${t('body.more')}</button></p>`}
				${data && !lanes.length && html`<${Empty} title=${t(instance ? 'live.nomatch' : 'queue.empty')}>${instance && html`<button type="button" onClick=${() => filter({ instance: '' })}>${t('filter.clear')}</button>`}<//>`}</div>
			${rest && html`<${One} id=${rest} lane=${head} entries=${entries} error=${lane.error} operates=${operates} order=${order} skip=${() => show('skip')} close=${close} />`}
		</div>
		${dialog && html`<${Confirm} what=${dialog} first=${entries[0]} onClose=${() => show('')} act=${() => {
			show('');
			if (dialog === 'drain') order('drain');
			else order('skip', { lane: rest, seq: String(entries[0].seq) });
		}} />`}
	<//>`;
}

/** What the queue holds, and what was ordered. To resume the whole queue ends all that was ordered, which the button on top says. @param {{state: QueueState, operates: boolean, order: Order}} props */
function Held({ state: s, operates, order }) {
	return html`<section class="card held"><dl class="pairs">
		<div><dt>${t('queue.holds')}</dt><dd><b>${t('entries', { n: s.entries })}</b> · ${t('lanes', { n: s.lanes })}${s.lanes_waiting > 0 && ` · ${t('queue.waiting', { n: s.lanes_waiting })}`}</dd></div>
		<div><dt>${t('col.size')}</dt><dd>${t('used', { used: size(s.bytes), most: size(s.max_bytes) })}<${Meter} value=${s.bytes} most=${s.max_bytes} label=${t('used', { used: size(s.bytes), most: size(s.max_bytes) })} /></dd></div>
		<div><dt>${t('queue.flight')}</dt><dd>${number(s.in_flight)}</dd></div></dl>
		${s.draining && html`<p><${State} level="warn">${t('queue.draining')}<//></p>`}
		${s.paused.map((one) => html`<p class="ordered" key=${(one.name ?? '') + ' ' + one.instance}><${State} level="warn">${t('queue.paused.is')} ${one.name || one.instance ? [one.name && html`${t('col.block')} <${Code} of=${one.name} /> `, one.instance && html`${t('col.instance')} <${Code} of=${one.instance} />`] : t('queue.whole')}<//>
			${operates && (one.name || one.instance) && html`<button type="button" data-act="resume" onClick=${() => order('resume', { ...one })}>${t('live.resume')}</button>`}</p>`)}
		${(s.crowded ?? []).map((one) => html`<p key=${one.name}><${State} level="warn">${tx('queue.crowd', { name: html`<${Code} of=${one.name} />`, places: one.in_flight, since: html`<${Time} at=${one.since} seconds />`, ready: one.ready })}<//></p>`)}
	</section>`;
}

/** @param {{id: string, lane?: Lane, entries: QueueEntry[], error: import('../api.js').APIError | null, operates: boolean, order: Order, skip: () => void, close: () => void}} props */
function One({ id, lane, entries, error, operates, order, skip, close }) {
	const at = useNow();
	/** @type {import('../table.js').Column<QueueEntry>[]} */
	const columns = [
		{ key: 'at', label: t('col.time'), kind: 'time', cell: (e) => html`<${Time} at=${e.received} seconds />` },
		{ key: 'type', label: t('col.type'), kind: 'grow', cell: (e) => html`<${Value} of=${[e.type, e.message].filter(Boolean).join('.') || '–'} />` },
		{ key: 'chat', label: t('col.chat'), kind: 'minor', cell: (e) => html`<${Value} of=${e.chat || '–'} />` },
		{ key: 'id', label: 'idMessage', kind: 'minor', cell: (e) => html`<${Code} of=${e.id ?? '–'} />` },
		{ key: 'size', label: t('col.size'), kind: 'num', cell: (e) => size(e.size) },
	];
	return html`<section class="card detail" data-lane=${id} aria-label=${t('lane')}>
		<${Head} close=${close} title=${lane ? html`<${Value} of=${lane.instance} /> ${lane.chat && html`<span><${Value} of=${lane.chat} /></span>`} ${stateOf(lane)}` : html`<code>${visible(id)}</code>`} />
		<${Problem} of=${error?.status === 404 ? t('lane.gone') : error?.message} />
		${lane && html`<p>${why(lane, at)}</p>
			${operates && html`<div class="buttons">${lane.state === 'waiting' && html`<button type="button" class="primary" data-act="retry" onClick=${() => order('retry', { lane: id })}>${t('lane.retry')}</button>`}
				<button type="button" data-act="pause" onClick=${() => order('pause', { instance: lane.instance })}>${t('lane.pause.instance')}</button>
				<button type="button" data-act="pause" data-for="block" onClick=${() => order('pause', { name: lane.name })}>${t('lane.pause.block', { name: visible(lane.name) })}</button>
				${entries[0] && html`<button type="button" class="danger" data-act="skip" onClick=${skip}>${t('lane.skip')}…</button>`}</div>`}
			<h3>${lane.entries > entries.length ? t('shown.of', { shown: entries.length, of: lane.entries }) : t('entries', { n: lane.entries })}</h3>
			<${Table} caption=${t('col.entries')} columns=${columns} rows=${entries} id=${(/** @type {QueueEntry} */ e) => e.seq} />`}
	</section>`;
}

/** @param {{what: 'drain'|'skip', first?: QueueEntry, act: () => void, onClose: () => void}} props */
function Confirm({ what, first, act, onClose }) {
	const [meant] = useState(first); // what comes first later is not meant
	const gone = what === 'skip' && meant?.seq !== first?.seq;
	return html`<${Dialog} name=${what} title=${t(what === 'skip' ? 'lane.skip' : 'queue.drain')} onClose=${onClose}>
		<p>${t(what === 'skip' ? 'lane.skip.why' : 'queue.drain.why')}</p>
		${what === 'skip' && meant && html`<p><${Time} at=${meant.received} seconds /> <${Code} of=${[meant.type, meant.message].filter(Boolean).join('.')} /> <${Code} of=${meant.id ?? ''} /> <small>seq ${String(meant.seq)}</small></p>`}
		<${Problem} of=${gone && t('lane.skip.gone')} />
		<footer class="buttons"><button type="button" data-act="cancel" onClick=${onClose}>${t('cancel')}</button><button type="button" data-act="confirm" class=${what === 'skip' ? 'danger' : 'primary'} disabled=${gone} onClick=${act}>${t(what === 'skip' ? 'lane.skip' : 'queue.drain')}</button></footer><//>`;
}
