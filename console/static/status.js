// Keeps what the edge says of itself: asked every 5 seconds while somebody looks, as each question is a line in its log.
import { ask } from './api.js';
import { now, setClock, store } from './ui.js';

const looking = 5000;
const hidden = 60_000;

/** data is the last answer, at is when it came, error is why there is no newer one.
 * @type {ReturnType<typeof store<{data: import('../types/api').Status | null, at: number, error: import('./api.js').APIError | null}>>} */
export const status = store({ data: null, at: 0, error: null });

let timer = 0;
let asked = 0;

/** Asks now, and from then on. */
export async function refresh() {
	clearTimeout(timer);
	const mine = ++asked;
	try {
		const answer = await ask('status', { signal: AbortSignal.timeout(10_000) });
		const date = answer.headers.get('Date');
		if (date && !status.get().at) setClock(date);
		const data = await answer.json();
		if (mine === asked) status.set({ data, at: now(), error: null });
	} catch (err) {
		if (mine === asked) status.set({ error: /** @type {any} */ (err) });
	}
	if (mine === asked) timer = window.setTimeout(refresh, document.hidden ? hidden : looking);
}

document.addEventListener('visibilitychange', () => {
	if (!document.hidden) refresh();
});
