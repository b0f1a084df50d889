package notification

import "strings"

// SameInstance returns the one spelling of an ID that Parse uses: as a string, an ID may have leading
// zeros, which no handler that reads a number would see.
func SameInstance(id string) string {
	if short := strings.TrimLeft(id, "0"); short != "" {
		return short
	}
	return "0"
}

// IsInstanceID reports whether a text can be an idInstance: 1 to 20 digits.
func IsInstanceID(id string) bool {
	if id == "" || len(id) > 20 {
		return false
	}
	for _, c := range id {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
