// The top of the page: which edge this is, whether it is heard, the screens, and how the page is shown.
import { html, keep, kept, useEffect, useState } from './ui.js';
import { live } from './live.js';
import { status } from './status.js';
import { Value } from './text.js';
import { languages, setUTC, speak, t, words, zone } from './words.js';
import { keys } from './keys.js';

/** @param {{screens: string[], at: string, me: import('../types/api').Me | null}} props */
export function Header({ screens, at, me }) {
	const { data } = status.use();
	const shown = screens.filter((name) => name !== 'queue' || data?.queue);
	/** @type {(name: string) => number} */
	const count = (name) => (name === 'quarantine' ? data?.quarantine.entries : name === 'instances' ? data?.standing?.length : 0) ?? 0;
	useEffect(() => document.querySelector('nav [aria-current]')?.scrollIntoView({ block: 'nearest', inline: 'center' }), [at]);
	return html`<header class="top">
		<a class="skip" href="#main" onClick=${skip}>${t('skip')}</a>
		<div class="brand"><svg class="logo" viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="7" /><path d="M7 16h8m0 0 5-6h5m-10 6 5 6h5" /></svg>
			<span class="host">${me ? html`<${Value} of=${me.host} />` : ''}<small>green-api edge</small></span><${Connection} /></div>
		<nav aria-label=${t('nav')}>${shown.map((name) => html`<a href=${'#/' + name} key=${name} aria-current=${name === at ? 'page' : null}>${t(`nav.${name}`)}${
			count(name) > 0 ? html` <span class=${'count' + (name === 'instances' ? ' bad' : '')}>${count(name)}</span>` : ''}</a>`)}</nav>
		<div class="tools">
			${me?.role === 'read_only' && html`<span class="badge" title=${t('readonly.why')}>${t('readonly')}</span>`}
			<${Switches} />
			${me?.door === 'site' && me.login && html`<button type="button" class="icon" data-act="logout" title=${me.user} onClick=${logout}>${t('logout')}</button>`}
		</div></header>`;
}

/** @param {Event} event */
function skip(event) {
	event.preventDefault();
	/** @type {HTMLElement | null} */ (document.querySelector('main h1'))?.focus();
}

async function logout() {
	await fetch('logout', { method: 'POST' }).catch(() => {});
	location.replace('./');
}

function Connection() {
	const { connection, why } = live.use();
	const { data, error } = status.use();
	const state = error && connection !== 'live' ? 'lost' : connection;
	return html`<span id="connection" data-state=${state} title=${data?.version ?? ''}>${t(why && state !== 'lost' ? `connection.${why}` : `connection.${state}`)}</span>`;
}

function Switches() {
	const { language, utc } = words.use();
	const [theme, setTheme] = useState(kept('theme'));
	const dark = theme ? theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
	const turn = () => {
		const next = dark ? 'light' : 'dark';
		keep('theme', next);
		document.documentElement.dataset.theme = next;
		setTheme(next);
	};
	const other = languages[(languages.indexOf(language) + 1) % languages.length];
	const change = () => {
		keep('language', other);
		speak(other);
	};
	return html`<button type="button" class="icon" data-act="zone" title=${t('zone')} aria-pressed=${utc} onClick=${() => setUTC(!utc)}>${zone()}</button>
		<button type="button" class="icon" data-act="language" lang=${other} title=${t('language')} onClick=${change}>${other}</button>
		<button type="button" class="icon" data-act="theme" aria-label=${t(dark ? 'theme.light' : 'theme.dark')} title=${t(dark ? 'theme.light' : 'theme.dark')} onClick=${turn}>
			<svg viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="6" /><path d="M8 2a6 6 0 0 1 0 12z" /></svg></button>
		<button type="button" class="icon help" data-act="help" aria-label=${t('keys')} title=${t('keys')} onClick=${() => keys.set({ help: true })}>?</button>`;
}
