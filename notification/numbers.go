package notification

import "bytes"

// maxNumberBytes is the longest number; a validator takes seconds for one of 100,000 digits.
const maxNumberBytes = 64

// The first digits of two numbers: the one half way between the largest float64 and the next power of two,
// and the one half way between 0 and the smallest. What lies beyond is rounded to infinity and to 0. They
// have more digits here than any number that is read.
const (
	largest  = "17976931348623158079372897140530341507993413271003782693617377898044496829276475094664901797758720"
	smallest = "24703282292062327208828439643411068618252990130716238221279284125033775363510437593264991818081799"
	// The powers of ten of their first digits.
	largestPower, smallestPower = 308, -324
)

// digitsOf splits a JSON number into its digits, from the first to the last that is not 0, and the power of
// ten of the first one. ok is false if the exponent is out of all bounds.
func digitsOf(raw []byte, room *[maxNumberBytes]byte) (digits []byte, power int, ok bool) {
	mantissa, exponent := raw, 0
	if e := bytes.IndexAny(raw, "eE"); e >= 0 {
		mantissa = raw[:e]
		written := bytes.TrimLeft(raw[e+1:], "+-0")
		if len(written) > 3 {
			return nil, 0, false
		}
		for _, c := range written {
			exponent = 10*exponent + int(c-'0')
		}
		if raw[e+1] == '-' {
			exponent = -exponent
		}
	}
	digits = room[:0]
	whole := -1 // digits before the point, minus one
	point := false
	for _, c := range mantissa {
		switch c {
		case '-':
		case '.':
			point = true
		default:
			digits = append(digits, c)
			if !point {
				whole++
			}
		}
	}
	significant := bytes.TrimLeft(digits, "0")
	power = whole - (len(digits) - len(significant)) + exponent
	return bytes.TrimRight(significant, "0"), power, true
}

// fitsFloat reports whether a JSON number is neither too large for a float64 nor rounded to zero. strconv
// would give the same result, but takes microseconds for a number next to a limit.
func fitsFloat(raw []byte) bool {
	var room [maxNumberBytes]byte
	digits, power, ok := digitsOf(raw, &room)
	switch {
	case !ok:
		return false
	case len(digits) == 0:
		return true
	case power == largestPower:
		return string(digits) < largest
	case power == smallestPower:
		return string(digits) > smallest
	default:
		return power < largestPower && power > smallestPower
	}
}

// isWhole reports whether a JSON number has no fraction, such as 1.0 and 1e2.
func isWhole(raw []byte) bool {
	if !bytes.ContainsAny(raw, ".eE") {
		return true
	}
	var room [maxNumberBytes]byte
	digits, power, ok := digitsOf(raw, &room)
	return ok && (len(digits) == 0 || len(digits) <= power+1)
}
