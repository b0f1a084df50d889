package doctor

import "syscall"

// Of adjtimex(2).
const (
	statusUnsynced = 0x0040
	stateError     = 5
)

// unsynced reports whether the kernel says that nothing keeps its clock right.
func unsynced() bool {
	var t syscall.Timex
	state, err := syscall.Adjtimex(&t)
	return err == nil && (state == stateError || t.Status&statusUnsynced != 0)
}
