// How the edge is set up: what to mend in its config, gates that only report, rules that gave way, and what it uses.
import { html } from '../ui.js';
import { Meter, Outcome, Reason, Screen, Sign, State } from '../parts.js';
import { status } from '../status.js';
import { Code, Value } from '../text.js';
import { Time, number, size, t } from '../words.js';
import { wayOf } from './handlers.js';

/** @typedef {import('../../types/api').Status} Status */

export default function Setup() {
	const { data } = status.use();
	const name = t('nav.setup');
	if (!data) return html`<${Screen} name="setup" title=${name} />`;
	return html`<${Screen} name="setup" title=${name}>
		<${Warnings} of=${data.warnings ?? []} /><${Softened} data=${data} />
		<div class="halves"><${Uses} data=${data} /><${Addresses} of=${data.addresses} /></div>
		<${Receivers} of=${data.receivers ?? []} />
	<//>`;
}

/** @param {{of: NonNullable<Status['warnings']>}} props */
const Warnings = ({ of }) => html`<section class="card"><h2>${t('setup.warnings')}</h2>
	${of.length ? html`<ul class="warnings">${of.map(({ message, fields: { fix, ...fields } }, i) => html`<li key=${i}><${Sign} of="refused" /><div>
		<p><bdi lang="en">${message}</bdi></p>${fix && html`<p><b>${t('setup.fix')}</b> <bdi lang="en"><${Value} of=${fix} /></bdi></p>`}
		<p class="quiet">${Object.entries(fields).map(([key, value]) => html`<span class="pair" key=${key}><${Code} of=${key} /> <${Value} of=${typeof value === 'string' ? value : JSON.stringify(value)} /></span>`)}</p></div></li>`)}</ul>`
		: html`<p class="quiet">${t('setup.warnings.none')}</p>`}</section>`;

/** Gates that refuse nothing and rules that gave way. @param {{data: Status}} props */
function Softened({ data }) {
	const { report_only: gates, drift, new_types: types } = data;
	const would = data.would_be ?? [];
	if (!gates?.length && !drift?.length && !types?.length) return null;
	return html`<section class="card"><h2>${t('setup.soft')}</h2><ul class="warnings">
		${gates?.map(({ name, gate }) => html`<li key=${name + gate}><${Sign} of="queued" /><div><p><${Value} of=${name} />: <${Code} of=${gate + ' report_only'} /></p><p class="quiet">${t('setup.report_only')}</p></div></li>`)}
		${would.length > 0 && html`<li><span></span><p>${t('setup.would')} ${would.map(({ outcome, reason, n }) => html`<span class="pair" key=${outcome + reason}><${Outcome} of=${outcome} /> <${Reason} of=${reason} /> <b>${number(n)}</b></span>`)}</p></li>`}
		${drift?.map((rule) => html`<li key=${rule.name + rule.kind + rule.pointer + rule.keyword}><${Sign} of="refused" /><div><p><${Value} of=${rule.name} />: <${Code} of=${`${rule.kind} ${rule.pointer || '/'} ${rule.keyword}`} /> <${Time} at=${rule.since} /></p><p class="quiet">${t('setup.drift')}</p></div></li>`)}
		${types?.map((type) => html`<li key=${type.name + type.type}><${Sign} of="queued" /><div><p><${Value} of=${type.name} />: <${Code} of=${type.type} /> <${Time} at=${type.since} /></p><p class="quiet">${t('setup.new_type')}</p></div></li>`)}
	</ul></section>`;
}

/** @param {{data: Status}} props */
function Uses({ data }) {
	const { quarantine: q, queue, blocks } = data;
	const used = t('used', { used: size(q.bytes), most: size(q.max_bytes) });
	return html`<section class="card"><h2>${t('setup.uses')}</h2><dl class="facts">
		<dt>${t('setup.version')}</dt><dd><${Value} of=${data.version} /></dd><dt>Caddy</dt><dd><${Value} of=${data.caddy} /></dd>
		<dt>${t('nav.quarantine')}</dt><dd><${Code} of=${q.path} /><br />${used} <${Meter} value=${q.bytes} most=${q.max_bytes} label=${used} /><br /><span class="quiet">${t('setup.file', { size: size(q.file_bytes) })}</span></dd>
		${queue && html`<dt>${t('nav.queue')}</dt><dd><${Code} of=${queue.engine} />, ${t('used', { used: size(queue.bytes), most: size(queue.max_bytes) })}</dd>`}
		<dt>${t('setup.blocks')}</dt><dd>${(blocks ?? []).map((block) => html`<div key=${block.name}><${Value} of=${block.name} />, ${wayOf(block)}</div>`)}</dd></dl></section>`;
}

/** @param {{of: Status['addresses']}} props */
const Addresses = ({ of }) => html`<section class="card"><h2>${t('setup.addresses')}</h2><p class="quiet">${t('setup.addresses.of', { date: of.date, n: of.list?.length ?? 0 })}</p>
	<ul class="addresses">${(of.list ?? []).map((one) => html`<li key=${one}><bdi>${one}</bdi></li>`)}</ul></section>`;

/** @param {{of: import('../../types/api').Receiver[]}} props */
const Receivers = ({ of }) => of.length > 0 && html`<section class="card"><h2>${t('receivers')}</h2><ul class="strip three">${of.map((r) => html`<li key=${r.instance}>
	<a href=${'#/instances?instance=' + encodeURIComponent(r.instance)}><${Value} of=${r.instance} /></a><span class="strip-state"><${State} level=${{ receiving: 'well', failing: 'bad', standby: 'off', starting: 'off' }[r.state]}>${t(`receiver.${r.state}`)} ${r.reason && html`<${Reason} of=${r.reason} />`}<//></span><span class="num"><${Time} at=${r.since} /></span></li>`)}</ul></section>`;
