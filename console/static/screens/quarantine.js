// To be filled: see the head of app.js.
import { html } from '../ui.js';
import { Screen } from '../parts.js';
import { t } from '../words.js';

export default function Quarantine() {
	return html`<${Screen} name="quarantine" title=${t('nav.quarantine')} state="empty" />`;
}
