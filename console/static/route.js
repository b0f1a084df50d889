// The address: #/screen/rest?filters. It never has anything of a message in it.
import { store } from './ui.js';

function read() {
	const [, path, query] = /^#?\/?([^?]*)\??(.*)$/.exec(location.hash) ?? [];
	const [screen, ...rest] = (path ?? '').split('/');
	return { screen: screen || 'overview', rest: decode(rest.join('/')), params: new URLSearchParams(query) };
}

/** @param {string} text */
function decode(text) {
	try {
		return decodeURIComponent(text);
	} catch {
		return text; // somebody typed a %
	}
}

export const address = store(read());
window.addEventListener('hashchange', () => address.set(read()));

/** Goes to an address such as '#/quarantine/ID'. @param {string} to */
export const go = (to) => {
	location.hash = to;
};

/** Sets filters of the screen of now, without a step of Back. "" takes one away. @param {{[name: string]: string}} changes */
export function filter(changes) {
	const params = new URLSearchParams(address.get().params);
	for (const [name, value] of Object.entries(changes)) value ? params.set(name, value) : params.delete(name);
	const query = params.toString();
	history.replaceState(null, '', location.hash.replace(/\?.*$/, '') + (query && '?' + query));
	address.set(read());
}
