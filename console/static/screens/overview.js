// Answers first who stands still, since when, why, and when the next try is; then shows what the edge does now.
import { html, useNow } from '../ui.js';
import { Chart, ends } from '../chart.js';
import { findings, link } from '../findings.js';
import { live } from '../live.js';
import { Command, Meter, Outcome, Reason, Screen, Sign } from '../parts.js';
import { status } from '../status.js';
import { Value } from '../text.js';
import { duration, latency, number, rate, size, t, tx } from '../words.js';
import { HandlerState, upstreams } from './handlers.js';

const signs = { bad: 'failed', warn: 'refused', note: 'queued' };
const mostFindings = 10;

export default function Overview() {
	const { data } = status.use();
	const seen = live.use();
	const at = useNow();
	if (!data) return html`<${Screen} name="overview" title=${t('nav.overview')} quiet />`;
	const found = findings(data, seen.rows, at);
	const ended = Object.values(data.outcomes).reduce((sum, n) => sum + n, 0);
	const nothing = !ended && !found.some((f) => f.level === 'bad');
	return html`<${Screen} name="overview" title=${t('nav.overview')} state=${nothing ? 'empty' : 'ready'} quiet>
		<${Attention} found=${found} data=${data} nothing=${nothing} />
		${nothing && html`<${First} />`}
		<div class="figures">
			<${Figure} name=${t('figure.now')} value=${t('a.second', { rate: rate(ends.reduce((sum, end) => sum + (seen.rates[end] ?? 0), 0)) })} wide>
				<ul class="rates">${Object.entries(seen.rates).filter(([, n]) => n > 0).map(([end, n]) => html`<li key=${end}><${Outcome} of=${end} /> <b>${rate(n)}</b></li>`)}</ul><//>
			<${Figure} name=${t('figure.p50')} value=${latency(seen.p50)} /><${Figure} name=${t('figure.p99')} value=${latency(seen.p99)} />
			<${Figure} name=${t('figure.waiting')} value=${number(seen.waiting)} />
		</div>
		<section class="card"><${Chart} trend=${seen.trend} /></section>
		<div class="halves"><${Handlers} data=${data} at=${at} /><${Facts} data=${data} at=${at} /></div>
	<//>`;
}

/** @param {{found: import('../findings.js').Finding[], data: import('../../types/api').Status, nothing: boolean}} props */
function Attention({ found, data, nothing }) {
	const [first, ...others] = found.filter((f) => f.level !== 'note');
	const notes = found.filter((f) => f.level === 'note');
	const level = /** @type {'bad'|'warn'|'note'|'well'} */ (first?.level ?? 'well');
	const instances = data.instances?.length ?? 0;
	const well = nothing ? t('nothing') : instances ? t('well', { n: instances }) : t('well.none');
	const sign = level === 'well' ? (nothing ? 'dropped' : 'delivered') : signs[level];
	return html`<section class=${'attention ' + level}><${Sign} of=${sign} />
			<div><p id="sentence" aria-live="polite">${first ? first.say : well}</p>${first && html`<${More} of=${first} />`}</div>
			${first && html`<${Links} of=${first} />`}</section>
		<${Found} title=${t('others', { n: others.length })} of=${others} /><${Found} title=${t('notes')} of=${notes} />`;
}

/** @param {{title: string, of: import('../findings.js').Finding[]}} props */
function Found({ title, of }) {
	const list = (/** @type {typeof of} */ some) => html`<ul class="findings">${some.map((f) => html`<li key=${f.id} class=${f.level}><${Sign} of=${signs[f.level]} /><div><p>${f.say}</p><${More} of=${f} /></div><${Links} of=${f} /></li>`)}</ul>`;
	return of.length > 0 && html`<section class="card"><h2>${title}</h2>${list(of.slice(0, mostFindings))}
		${of.length > mostFindings && html`<details><summary>${t('more', { n: of.length - mostFindings })}</summary>${list(of.slice(mostFindings))}</details>`}</section>`;
}

/** @param {{of: import('../findings.js').Finding}} props */
const More = ({ of }) => html`${of.said && html`<p class="said"><${Value} of=${of.said} /></p>`}
	${of.more?.length ? html`<p class="more">${of.more.map((text) => html`<span key=${text}>${text}</span>`)}</p>` : ''}`;

/** @param {{of: import('../findings.js').Finding}} props */
const Links = ({ of }) => html`<p class="links">${of.links?.map(({ href, key }) => html`<a href=${href} key=${key}>${t(key)}</a>`)}</p>`;

/** What to do first. */
function First() {
	const url = t('first.url');
	return html`<section class="card first"><h2>${t('first')}</h2><ol>
		<li><p>${t('first.vendor')}</p><${Command} of=${url} /></li>
		<li><p>${t('first.send')}</p><${Command} of=${`caddy green-api send ${url} --token "$GREEN_API_TOKEN"`} /></li>
		<li><p>${t('first.curl')}</p><${Command} of=${`curl -i -H "Authorization: Bearer $GREEN_API_TOKEN" -d '{}' ${url}`} /></li></ol></section>`;
}

/** @param {{name: string, value: string, wide?: boolean, children?: unknown}} props */
const Figure = ({ name, value, wide, children }) => html`<div class=${'card figure' + (wide ? ' wide' : '')}><h2>${name}</h2><p class="big">${value}</p>${children}</div>`;

/** @param {{data: import('../../types/api').Status, at: number}} props */
function Handlers({ data, at }) {
	const all = upstreams(data);
	return html`<section class="card"><h2><a href="#/handlers">${t('nav.handlers')}</a></h2>
		${all.length ? html`<ul class="strip">${all.slice(0, 12).map(({ block, up }) => html`<li key=${block.name + up.address}>
			<a href=${link('handlers', { handler: up.address })}><${Value} of=${up.address} /></a><span class="strip-state"><${HandlerState} up=${up} at=${at} /></span>
			<span class="num">${t('in.hand', { n: up.in_hand })}</span><span class="num minor">${latency(up.p99_ms)}</span></li>`)}</ul>`
			: html`<p class="quiet">${t('handlers.none')}</p>`}</section>`;
}

/** @param {{data: import('../../types/api').Status, at: number}} props */
function Facts({ data, at }) {
	const { quarantine: q, queue } = data;
	const last = data.alerts?.[0];
	const receivers = data.receivers ?? [];
	const used = t('used', { used: size(q.bytes), most: size(q.max_bytes) });
	return html`<section class="card"><dl class="facts">
		<dt><a href="#/quarantine">${t('nav.quarantine')}</a></dt><dd>${t('entries', { n: q.entries })}, ${used} <${Meter} value=${q.bytes} most=${q.max_bytes} label=${used} /></dd>
		${queue && html`<dt><a href="#/queue">${t('nav.queue')}</a></dt><dd>${t('entries', { n: queue.entries })}, ${t('lanes', { n: queue.lanes })}${queue.entries > 0 ? ', ' + t('queue.oldest', { for: duration(queue.oldest_seconds * 1000) }) : ''}</dd>`}
		<dt><a href="#/activity">${t('alerts')}</a></dt><dd>${t('alerts.pending', { n: data.alerts_pending })}${last && html`<br />${tx('alerts.last', { reason: html`<${Reason} of=${last.reason} />`, ago: duration(at - Date.parse(last.at)) })}`}</dd>
		${receivers.length > 0 && html`<dt>${t('receivers')}</dt><dd>${['receiving', 'standby', 'starting', 'failing'].map((s) => ({ s, n: receivers.filter((r) => r.state === s).length })).filter(({ n }) => n).map(({ s, n }) => `${number(n)} ${t(`receiver.${s}`)}`).join(', ')}</dd>`}
		<dt>${t('since.start')}</dt><dd>${Object.entries(data.outcomes).filter(([, n]) => n).map(([end, n]) => html`<span class="total" key=${end}><${Outcome} of=${end} /> <b>${number(n)}</b> </span>`)}</dd>
	</dl></section>`;
}
