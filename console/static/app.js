// The page begins here: it loads the words, asks who looks, and draws the screen that the address names.
//
// To add a screen: a file in screens/ that exports its component as default, a line in `screens` below (its place is
// its place in the navigation), and its name as "nav.NAME" in each file of lang/. The component gets
//
//	rest    what follows its name in the address, decoded: "ID" in #/quarantine/ID, else ""
//	params  the filters behind "?", as URLSearchParams
//	me      who looks, with role, bodies and phones; null until that is known
//
// and draws a <Screen name title state tools> (parts.js), which has the frame, the title, the skeleton, and the banner for
// an edge that does not answer. `go` of route.js changes the address, `filter` its filters. It asks through api.js (ask,
// askJSON, askLines), follows status.js and live.js with `status.use()` and `live.use()`, and takes its parts from
// parts.js (Outcome, State, Reason, Empty, Meter, Command, Dialog), table.js (Table) and text.js: all that comes from
// outside is drawn by Value or Code. Sentences are t('key', {n, name}) as a string, or tx(...) with elements as
// values, numbers and times come from words.js. useKey of keys.js adds a key. A test names sentences that are missing
// or that nothing uses: write each key as one literal, or as a template with a literal beginning.
import { askJSON } from './api.js';
import { html, render, useEffect, useState } from './ui.js';
import { Header } from './header.js';
import { Help } from './keys.js';
import { start } from './live.js';
import { refresh } from './status.js';
import { startWords, words } from './words.js';
import { address } from './route.js';
import Overview from './screens/overview.js';
import Live from './screens/live.js';
import Quarantine from './screens/quarantine.js';
import Handlers from './screens/handlers.js';
import Instances from './screens/instances.js';
import Queue from './screens/queue.js';
import Activity from './screens/activity.js';
import Setup from './screens/setup.js';

/** @type {{[name: string]: (props: any) => unknown}} */
const screens = { overview: Overview, live: Live, quarantine: Quarantine, queue: Queue, handlers: Handlers, instances: Instances, activity: Activity, setup: Setup };

function App() {
	words.use();
	const { screen, rest, params } = address.use();
	const [me, setMe] = useState(/** @type {import('../types/api').Me | null} */ (null));
	useEffect(() => {
		askJSON('me').then(setMe, () => {}); // status says what is wrong
	}, []);
	const at = Object.hasOwn(screens, screen) ? screen : 'overview';
	return html`<${Header} screens=${Object.keys(screens)} at=${at} me=${me} />
		<${screens[at]} key=${at} rest=${rest} params=${params} me=${me} />
		<${Help} />`;
}

refresh();
start();
await startWords();
render(html`<${App} />`, /** @type {Element} */ (document.getElementById('page')));
