// Asks the server. All addresses are relative to the page's.

/** An answer that is no success. Its status is 0 if there was none. */
export class APIError extends Error {
	/** @param {number} status @param {string} message */
	constructor(status, message) {
		super(message);
		this.status = status;
	}
}

/**
 * Sends a request. A session that is over leads to the login page.
 * @param {string} path below api/
 * @param {{method?: string, form?: Record<string, string | string[]> | URLSearchParams, signal?: AbortSignal}} [options] a form is sent as the body
 */
export async function ask(path, { method, form, signal } = {}) {
	/** @type {RequestInit} */
	const request = { method: method ?? (form ? 'POST' : 'GET'), headers: { Accept: 'application/json' }, signal, cache: 'no-store' };
	if (form) request.body = form instanceof URLSearchParams ? form : fields(form);
	let answer;
	try {
		answer = await fetch('api/' + path, request);
	} catch (err) {
		throw new APIError(0, String(err instanceof Error ? err.message : err));
	}
	if (answer.status === 401) {
		location.reload(); // the login page leads back to this screen
		await new Promise(() => {}); // the page goes
	}
	if (!answer.ok) {
		const text = await answer.text();
		let message = text;
		try {
			message = JSON.parse(text).error ?? text;
		} catch {
			// It is no answer of the API, but maybe of a proxy.
		}
		throw new APIError(answer.status, message.slice(0, 500) || answer.statusText);
	}
	return answer;
}

/** Returns the JSON of an answer.
 * @param {string} path @param {Parameters<typeof ask>[1]} [options] @returns {Promise<any>} */
export const askJSON = async (path, options) => (await ask(path, options)).json();

/** Returns the lines of an answer with one JSON value a line.
 * @param {string} path @param {Parameters<typeof ask>[1]} [options] @returns {Promise<any[]>} */
export async function askLines(path, options) {
	const text = await (await ask(path, options)).text();
	return text.split('\n').filter(Boolean).map((line) => JSON.parse(line));
}

/** @param {Record<string, string | string[]>} form */
function fields(form) {
	const list = new URLSearchParams();
	for (const [name, value] of Object.entries(form)) for (const one of [value].flat()) list.append(name, one);
	return list;
}
