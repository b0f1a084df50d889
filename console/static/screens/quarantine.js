// What is kept, the newest first, with one entry beside the list, and what can be done with one or with all that match.
import { askJSON } from '../api.js';
import { html, now, store, useEffect, useMemo, useRef, useState } from '../ui.js';
import { useKey } from '../keys.js';
import { Empty, Reason, Screen } from '../parts.js';
import { filter, go } from '../route.js';
import { refresh, status } from '../status.js';
import { Table } from '../table.js';
import { Code, Value, visible } from '../text.js';
import { Time, has, number, size, t } from '../words.js';
import { ActDialog, Why, inVain } from './act.js';
import { Problem, RowLink, place, said as why, useReturn } from './beside.js';
import { Detail } from './entry.js';
import { Select } from './live.js';

/** @typedef {import('../../types/api').Entry} Entry */
/** @typedef {import('../../types/api').Result} Result */

const page = 100;
const most = 500; // rows in the document

/** The chat that is looked for, and whether phone numbers are shown: never in the address.
 * @type {ReturnType<typeof store<{chat: string, phones: boolean | null}>>} */
const hidden = store({ chat: '', phones: null });

/** Returns the filters as the API takes them. A duration becomes a time, for an act that comes later than its dry run.
 * @param {URLSearchParams} params @param {string} chat */
function chosen(params, chat) {
	const form = new URLSearchParams();
	for (const name of ['reason', 'type', 'instance']) if (params.get(name)) form.set(name, params.get(name) ?? '');
	const [, n, unit] = /^(\d+)([hd])$/.exec(params.get('since') ?? '') ?? [];
	if (n) form.set('since', new Date(now() - Number(n) * (unit === 'd' ? 86_400_000 : 3_600_000)).toISOString());
	else if (params.get('since')) form.set('since', params.get('since') ?? '');
	if (chat) form.set('chat', /^\d+$/.test(chat) ? chat + '@c.us' : chat);
	return form;
}

/** @typedef {{entries: Entry[], more: string, looked: number, unreadable: {error: string, entry?: string}[], busy: boolean, error: string, later: boolean}} Listed */
/** @type {Listed} */
const nothing = { entries: [], more: '', looked: 0, unreadable: [], busy: true, error: '', later: false };

/** Follows what a filter finds. A filter that meets little is answered in parts, and asked until a page is full.
 * @param {URLSearchParams} form @param {string} key changes when it is to be asked anew */
function useList(form, key) {
	const [list, set] = useState(nothing);
	const asking = useRef(new AbortController());
	/** @param {Listed} from */
	const load = async (from) => {
		asking.current.abort();
		const mine = (asking.current = new AbortController());
		let have = { ...from, busy: true, error: '' };
		const want = have.entries.length + page;
		set(have);
		try {
			do {
				const asked = new URLSearchParams(form);
				asked.set('limit', String(Math.min(page, want - have.entries.length)));
				if (have.more) asked.set('before', have.more);
				/** @type {import('../../types/api').Found} */
				const found = await askJSON('quarantine/search', { form: asked, signal: mine.signal });
				have = { ...have, entries: [...have.entries, ...found.entries], more: found.more ?? '', looked: have.looked + found.looked_at, unreadable: [...have.unreadable, ...(found.unreadable ?? [])].slice(0, page) };
				if (have.entries.length > most) have = { ...have, entries: have.entries.slice(-most), later: true };
				if (!mine.signal.aborted) set(have);
			} while (have.more && have.entries.length < Math.min(want, most) && !mine.signal.aborted);
		} catch (err) {
			have = { ...have, error: why(err) };
		}
		if (!mine.signal.aborted) set({ ...have, busy: false });
	};
	useEffect(() => {
		load(nothing);
		return () => asking.current.abort();
	}, [key]);
	return { list, more: () => load(list), again: () => load(nothing), drop: (/** @type {Set<string>} */ ids) => set((old) => ({ ...old, entries: old.entries.filter((e) => !ids.has(e.id)) })) };
}

/** @param {Entry} e */
function what(e) {
	const [fault, ...others] = e.faults ?? [];
	const answer = e.answers?.at(-1);
	if (fault) return html`<${Code} of=${(fault.pointer || '/') + ' ' + fault.keyword} />${others.length > 0 && html` <small>+${others.length}</small>`}`;
	if (e.cause) return html`<${Code} of=${e.cause} />`;
	return answer ? html`<${Value} of=${[answer.handler, answer.status || '', answer.error ?? ''].filter(Boolean).join(' ')} />` : '';
}

/** Goes to an address without a step of Back. @param {string} to */
function instead(to) {
	history.replaceState(null, '', to);
	window.dispatchEvent(new Event('hashchange'));
}

/** @param {{rest: string, params: URLSearchParams, me: import('../../types/api').Me | null}} props */
export default function Quarantine({ rest, params, me }) {
	const { data } = status.use();
	const { chat, phones } = hidden.use();
	const shows = phones ?? me?.phones ?? false;
	const [round, next] = useState(0);
	const [summary, setSummary] = useState(/** @type {import('../../types/api').Summary | null} */ (null));
	const [said, say] = useState(/** @type {Map<string, Result>} */ (new Map()));
	const [acting, act] = useState(/** @type {{act: import('./act.js').Act, form: URLSearchParams, id: string} | null} */ (null));
	const [news, tell] = useState('');
	const key = ['reason', 'type', 'instance', 'since'].map((name) => params.get(name)).join('\n') + chat;
	const form = useMemo(() => chosen(params, chat), [key, round]);
	const { list, more, again, drop } = useList(form, [key, round, shows].join('\n'));
	useEffect(() => void askJSON('quarantine/summary').then(setSummary, () => {}), [round, data?.quarantine.entries]);

	const came = useRef(''); // the entry that was opened from the list
	const left = useReturn(rest, list.entries);
	const open = (/** @type {Entry} */ e) => {
		if (rest) return instead(place('quarantine', e.id, params));
		came.current = e.id;
		go(place('quarantine', e.id, params));
	};
	const close = () => {
		if (!rest) return;
		if (came.current) history.back();
		else instead(place('quarantine', '', params));
	};
	useEffect(() => {
		if (!rest) came.current = '';
	}, [rest]);
	useKey('Escape', close);
	useKey('r', () => (refresh(), next(round + 1)));

	const all = () => {
		const fresh = chosen(params, chat);
		if (fresh.size === 0) fresh.set('all', 'true');
		return fresh;
	};
	/** @param {Result[]} results @param {boolean} deleted @param {boolean} [broken] */
	const done = (results, deleted, broken) => {
		const gone = new Set(results.filter((one) => one.outcome === 'delivered').map((one) => one.id));
		say(new Map([...said, ...results.map((one) => /** @type {const} */ ([one.id, one]))]));
		if (deleted && acting?.id) gone.add(acting.id);
		drop(gone);
		if (rest && gone.has(rest)) {
			const at = list.entries.findIndex((e) => e.id === rest);
			left.current = (list.entries[at + 1] ?? list.entries[at - 1])?.id ?? '';
			close();
		}
		tell(deleted ? t('act.deleted') : gone.size ? t('act.delivered', { n: gone.size }) : '');
		if (broken || (deleted && !acting?.id)) again();
		refresh();
	};
	const toggle = () => askJSON('phones', { form: { show: String(!shows) } }).then(() => hidden.set({ phones: !shows }), (err) => tell(why(err)));

	const operates = me?.role === 'operator';
	const filtered = form.size > 0;
	const kept = data?.quarantine.entries ?? 0;
	const known = useRef(0);
	known.current = list.busy ? kept : Math.min(known.current, kept);
	const stale = kept > known.current;
	/** @type {import('../table.js').Column<Entry>[]} */
	const columns = [
		{ key: 'at', label: t('col.time'), kind: 'time', cell: (e) => html`<${RowLink} href=${place('quarantine', e.id, params)} here=${e.id === rest}><${Time} at=${e.received} seconds /><//>` },
		{ key: 'reason', label: t('col.reason'), cell: (e) => html`<${Reason} of=${e.reason} />` },
		{ key: 'instance', label: t('col.instance'), kind: 'stays', cell: (e) => html`<${Value} of=${e.instance || '–'} />` },
		{ key: 'type', label: t('col.type'), kind: 'minor', cell: (e) => html`<${Value} of=${[e.type, e.message].filter(Boolean).join('.') || '–'} />` },
		{ key: 'chat', label: t('col.chat'), kind: 'minor', cell: (e) => (e.chat ? html`<${Value} of=${e.chat} />` : '–') },
		{ key: 'what', label: t('col.why'), kind: 'grow minor', cell: (e) => failure(said.get(e.id)) ?? what(e) },
		{ key: 'size', label: t('col.size'), kind: 'num minor', cell: (e) => size(e.size) },
	];
	const count = list.busy && list.looked > 2 * page ? t('kept.looked', { n: list.looked, of: number(summary?.entries ?? 0) })
		: list.busy ? '' : filtered || list.more ? t(list.more ? 'kept.first' : 'kept.found', { n: list.entries.length, of: number(summary?.entries ?? 0) }) : list.entries.length ? t('entries', { n: list.entries.length }) : '';
	const tools = html`${operates && !rest && list.entries.length > 0 && html`<span class="buttons" data-for="all">
			<button type="button" data-act="replay" onClick=${() => act({ act: 'replay', form: all(), id: '' })}>${t('act.replay.all')}…</button>
			${me.bodies && html`<button type="button" data-act="export" onClick=${() => act({ act: 'export', form: all(), id: '' })}>${t('act.export.all')}…</button>`}
			<button type="button" class="danger" data-act="delete" onClick=${() => act({ act: 'delete', form: all(), id: '' })}>${t('act.delete.all')}…</button></span>`}`;
	const state = list.busy && !list.entries.length ? 'loading' : list.entries.length || rest ? 'ready' : 'empty';
	return html`<${Screen} name="quarantine" title=${t('nav.quarantine')} state=${state} tools=${tools}>
		<${Filters} params=${params} summary=${summary} chat=${chat} me=${me} phones=${shows} toggle=${toggle} />
		<p class="quiet count-of" role="status">${[news, count].filter(Boolean).join(' · ')}${stale && html` <button type="button" data-act="refresh" onClick=${() => next(round + 1)}>${t('kept.stale')}</button>`}</p>
		<${Problem} of=${list.error}><button type="button" onClick=${again}>${t('retry')}</button><//>
		${list.unreadable.length > 0 && html`<details class="problem"><summary>${t('kept.unreadable', { n: list.unreadable.length })}</summary><ul>${list.unreadable.map((one) => html`<li><${Code} of=${one.entry ?? ''} /> <${Value} of=${one.error} /></li>`)}</ul></details>`}
		<div class=${'beside' + (rest ? ' has-entry' : '')}>
			<div class="list">${list.later && html`<p class="tail"><button type="button" onClick=${again}>${t('kept.newest')}</button></p>`}
				${list.entries.length > 0 && html`<${Table} caption=${t('nav.quarantine')} columns=${rest ? columns.filter((c) => !c.kind?.includes('minor')) : columns} rows=${list.entries} id=${(/** @type {Entry} */ e) => e.id} open=${open}
					mark=${(/** @type {Entry} */ e) => (e.id === rest ? 'is-open ' : '') + (inVain(said.get(e.id)) ? 'is-bad' : '')} />`}
				${list.more && !list.busy && html`<p class="tail"><button type="button" data-act="more" onClick=${more}>${t('kept.more')}</button></p>`}
				${!list.entries.length && !list.busy && !list.error && html`<${Empty} title=${t(filtered ? 'live.nomatch' : 'kept.none')}>${filtered
					? html`<button type="button" onClick=${() => (hidden.set({ chat: '' }), filter({ reason: '', type: '', instance: '', since: '' }))}>${t('filter.clear')}</button>` : html`<p class="quiet">${t('kept.none.why')}</p>`}<//>`}</div>
			${rest && html`<${Detail} key=${rest} id=${rest} me=${me} phones=${shows} result=${said.get(rest)} close=${close} act=${(/** @type {any} */ what, /** @type {string} */ id) => act({ act: what, form: new URLSearchParams({ id }), id })} />`}
		</div>
		${acting && html`<${ActDialog} act=${acting.act} form=${acting.form} one=${Boolean(acting.id)} done=${done} onClose=${() => act(null)} />`}
	<//>`;
}

/** @param {Result | undefined} result */
const failure = (result) => (result && result.outcome !== 'delivered' ? html`<${Why} result=${result} />` : undefined);

/** @param {{params: URLSearchParams, summary: import('../../types/api').Summary | null, chat: string, me: import('../../types/api').Me | null, phones: boolean, toggle: () => void}} props */
function Filters({ params, summary, chat, me, phones, toggle }) {
	const counts = (/** @type {{[name: string]: number}} */ of = {}) => Object.entries(of).filter(([name]) => name && name !== 'other').sort(([, a], [, b]) => b - a);
	const set = (/** @type {Event} */ e) => {
		e.preventDefault();
		const text = new FormData(/** @type {HTMLFormElement} */ (e.currentTarget)).get('chat');
		hidden.set({ chat: String(text ?? '').trim() });
	};
	return html`<form class="filters" autocomplete="off" onSubmit=${set} onChange=${(/** @type {any} */ e) => e.target.name === 'chat' && set(e)}>
		<${Select} name="reason" params=${params} options=${counts(summary?.reasons).map(([name, n]) => [name, `${name} (${number(n)})` + (has('reason.' + name) ? ' – ' + t('reason.' + name) : '')])} />
		<${Select} name="type" params=${params} options=${counts(summary?.types).map(([name, n]) => [name, `${visible(name)} (${number(n)})`])} />
		<${Select} name="instance" params=${params} options=${(summary?.instances ?? []).filter((one) => one.instance).map((one) => [one.instance, `${visible(one.instance)} (${number(one.entries)})`])} />
		<${Select} name="since" params=${params} options=${['1h', '6h', '24h', '7d'].map((span) => [span, t(`since.${span}`)])} />
		<input type="search" name="chat" aria-label=${t('col.chat')} placeholder=${t('chat.example')} title=${t('chat.private')} value=${chat} dir="ltr" />
		${me?.bodies && html`<button type="button" data-act="phones" aria-pressed=${phones} title=${t('phones.logged')} onClick=${toggle}>${t(phones ? 'phones.hide' : 'phones.show')}</button>`}
	</form>`;
}
