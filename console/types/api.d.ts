// The answers of the API, as the page uses them.

export type Outcome = 'delivered' | 'queued' | 'dropped' | 'quarantined' | 'refused' | 'failed';
export type Counts = { [outcome in Outcome]?: number };

export interface Me {
	user: string;
	role: 'operator' | 'read_only';
	bodies: boolean;
	phones: boolean;
	version: string;
	host: string;
	door: 'command' | 'site';
	login: boolean; // by a token, and not by whatever serves the site
}

export interface Standing {
	handlers: string[];
	instance: string;
	name: string;
	lane?: string;
	since: string;
	attempts: number;
	reason: string;
	handler: string;
	said: string;
	waiting: boolean;
	next?: string;
}

export interface Upstream {
	address: string;
	healthy: boolean;
	num_requests: number;
	limit?: number;
	in_hand: number;
	taken: number;
	not_taken: { [reason: string]: number };
	last_fault?: { at: string; reason: string; status?: number; error?: string };
	last_asked?: string;
	until?: string;
	why?: string;
	p50_ms: number;
	p99_ms: number;
	trend?: HandlerTrend;
}

export interface HandlerTrend {
	seconds: number;
	until: number;
	taken: number[];
	not_taken: number[];
}

export interface Block {
	name: string;
	delivery: string;
	queued?: boolean;
	why?: string;
	upstreams: Upstream[];
}

export interface Instance {
	instance: string;
	last: string;
	outcomes: Counts;
}

export interface Receiver {
	instance: string;
	name: string;
	state: 'starting' | 'standby' | 'receiving' | 'failing';
	reason?: string;
	since: string;
}

export interface Refusal {
	instance: string;
	name: string;
	reason: string;
	known: boolean;
	since: string;
	at: string;
}

export interface Alert {
	at: string;
	endpoint: string;
	reason: string;
	type: string;
	level: string;
	count: number;
	text: string;
	sent: boolean;
	failing?: string;
	error?: string;
}

export interface Queue {
	engine: string;
	entries: number;
	bytes: number;
	max_bytes: number;
	lanes: number;
	lanes_waiting: number;
	in_flight: number;
	oldest_seconds: number;
	paused: boolean;
	draining: boolean;
	connected: boolean;
}

export interface Status {
	version: string;
	caddy: string;
	addresses: { date: string; list: string[] | null };
	quarantine: { path: string; entries: number; bytes: number; max_bytes: number; file_bytes: number };
	outcomes: Counts;
	standing: Standing[] | null;
	queue?: Queue;
	waiting: number;
	alerts_pending: number;
	alerts: Alert[] | null;
	warnings: { message: string; fields: { [name: string]: unknown } }[] | null;
	would_be: { outcome: Outcome; reason: string; n: number }[] | null;
	report_only: { name: string; gate: string }[] | null;
	drift: { name: string; kind: string; pointer: string; keyword: string; since: string }[] | null;
	new_types: { name: string; type: string; since: string }[] | null;
	receivers: Receiver[] | null;
	instances: Instance[] | null;
	silent: { instance: string; since: string }[] | null;
	refused: Refusal[] | null;
	blocks: Block[] | null;
}

export interface Row {
	seq: number;
	at: number;
	outcome: Outcome;
	reason?: string;
	status: number;
	type: string;
	instance?: string;
	name: string;
	via?: string;
	client_ip?: string;
	handler?: string;
	attempts?: number;
	round?: number;
	ms: number;
	age?: number;
	pointer?: string;
	keyword?: string;
	quarantine_id?: string;
}

export interface Trend {
	seconds: number;
	until: number;
	slots: Counts[];
	p50_ms: number;
	p99_ms: number;
}

export interface Live {
	now: string;
	waiting: number;
	seq: number;
	counts: { outcome: Outcome; reason: string; n: number }[];
	rows: Row[];
	of: number;
	gap?: { from: number; to: number };
}

export interface Fault {
	pointer: string;
	keyword: string;
}

export interface Mark {
	pointer?: string;
	keyword?: string;
	cause?: string;
	start: number;
	end: number;
	missing?: boolean;
}

export interface Answer {
	handler?: string;
	status?: number;
	text?: string;
	error?: string;
}

export interface Entry {
	id: string;
	received: string;
	name?: string;
	reason: string;
	unadmitted?: boolean;
	type?: string;
	message?: string;
	instance?: string;
	chat?: string;
	notification_id?: string;
	offset?: number;
	cause?: string;
	faults?: Fault[];
	answers?: Answer[];
	client?: string;
	host?: string;
	uri?: string;
	header?: { [name: string]: string[] };
	size: number;
	marks?: Mark[];
}

export interface Found {
	entries: Entry[];
	unreadable?: { error: string; entry?: string }[];
	more?: string;
	looked_at: number;
}

export interface Summary {
	entries: number;
	unreadable?: number;
	reasons: { [reason: string]: number };
	types: { [type: string]: number };
	instances: { instance: string; entries: number }[];
	other_instances: number;
}

export interface DryRun {
	count: number;
	oldest?: string;
	newest?: string;
	until: string;
	skipped?: number;
	unreadable?: number;
}

export interface Result {
	id: string;
	outcome: 'delivered' | 'failed' | 'kept' | 'skipped';
	reason: string;
	error?: string;
}

export interface QueueState {
	entries: number;
	bytes: number;
	max_bytes: number;
	lanes: number;
	lanes_waiting: number;
	in_flight: number;
	paused: { name?: string; instance?: string }[];
	draining: boolean;
	crowded?: { name: string; in_flight: number; since: string; ready: number }[];
}

export interface Lane {
	lane: string;
	name: string;
	instance: string;
	chat: string;
	entries: number;
	bytes: number;
	oldest: string;
	state: 'ready' | 'delivering' | 'waiting' | 'paused' | 'no_handler';
	round: number;
	next?: string;
	reason: string;
	answer?: Answer;
}

export interface QueueEntry {
	seq: number;
	received: string;
	size: number;
	chat: string;
	id?: string;
	type?: string;
	message?: string;
}

export interface Action {
	at: string;
	user?: string;
	client_ip?: string;
	action: string;
	quarantine_id?: string;
	count?: number;
	name?: string;
	instance?: string;
	lane?: string;
	replay?: { [outcome in Result['outcome']]: number };
}
