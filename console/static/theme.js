// Sets the theme that was chosen before anything is drawn.
try {
	document.documentElement.dataset.theme = localStorage.getItem('theme') ?? '';
} catch {
	// storage is off: the system's theme it is
}
