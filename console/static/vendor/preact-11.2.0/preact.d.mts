// What the page uses of Preact.
export type Node = object | string | number | boolean | null | undefined | Node[];
export function h(type: unknown, props: unknown, ...children: unknown[]): object;
export class Component<P> {
	constructor(props: P);
	props: P;
}
export function render(node: Node, into: Element): void;
