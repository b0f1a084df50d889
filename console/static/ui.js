// What draws: Preact and htm, and values that several parts of the page share.
import { Component, h, render } from './vendor/preact-11.2.0/preact.mjs';
import { useEffect, useState } from './vendor/preact-11.2.0/hooks.mjs';
import htm from './vendor/htm-3.1.1/htm.module.js';

export { Component, render };
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from './vendor/preact-11.2.0/hooks.mjs';
export const html = htm.bind(h);

/**
 * Makes a value that components follow with `use`.
 * @template T
 * @param {T} value
 */
export function store(value) {
	/** @type {Set<(value: T) => void>} */
	const followers = new Set();
	return {
		get: () => value,
		/** @param {Partial<T>} change */
		set(change) {
			value = { ...value, ...change };
			for (const tell of followers) tell(value);
		},
		use() {
			const [seen, see] = useState(value);
			useEffect(() => {
				see(value);
				followers.add(see);
				return () => void followers.delete(see);
			}, []);
			return seen;
		},
	};
}

const clock = { offset: 0 };

/** Sets the clock by the edge's: the one of this machine may be wrong.
 * @param {string} edge */
export function setClock(edge) {
	clock.offset = Date.parse(edge) - Date.now();
}

/** The edge's time in milliseconds. */
export const now = () => Date.now() + clock.offset;

/** The edge's time, for a component that shows it: drawn again each second. */
export function useNow() {
	const [at, set] = useState(now);
	useEffect(() => {
		const timer = setInterval(() => set(now()), 1000);
		return () => clearInterval(timer);
	}, []);
	return at;
}

/** Reads what this browser keeps for the page.
 * @param {string} name */
export function kept(name) {
	try {
		return localStorage.getItem(name) ?? '';
	} catch {
		return ''; // storage is off
	}
}

/** @param {string} name @param {string} value */
export function keep(name, value) {
	try {
		localStorage.setItem(name, value);
	} catch {
		// It lasts until the page is closed.
	}
}
