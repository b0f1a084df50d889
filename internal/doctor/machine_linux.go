package doctor

import "syscall"

// From adjtimex(2).
const (
	statusUnsynced = 0x0040
	stateError     = 5
)

// unsynced reports whether the kernel says that nothing synchronizes its clock.
func unsynced() bool {
	var t syscall.Timex
	state, err := syscall.Adjtimex(&t)
	return err == nil && (state == stateError || t.Status&statusUnsynced != 0)
}
