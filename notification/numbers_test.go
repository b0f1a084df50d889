package notification

import (
	"bytes"
	"math/big"
	"strconv"
	"strings"
	"testing"
)

// bigNumbers are next to what a float64 can hold.
var bigNumbers = []string{
	"0", "-0", "0.0", "0e0", "0e-999", "1", "-1.5", "100", "1e2", "10e-1", "1.0", "1.50", "0.10e1", "0.10e2", "1e-1", "12300e-2", "12345e-3", "5e-324", "4.9e-324", "3e-324", "2.5e-324",
	"2.4703282292062327e-324", "2.4703282292062328e-324", "2.47032822920623272088284396434110686182529901307162382212e-324",
	"2.47032822920623272088284396434110686182529901307162382213e-324", "24703282292062327e-340", "0.00024703282292062328e-320", "1e-324", "9e-325", "1e-400", "-3e-324", "-2e-324",
	"1e308", "1.7976931348623157e308", "1.7976931348623158e308", "1.7976931348623159e308", "1.797693134862315807937289714053034150799341327100378269361e308",
	"1.797693134862315807937289714053034150799341327100378269362e308", "17976931348623158e292", "17976931348623159e292", "0.00017976931348623157e312", "1e309", "1e310", "-1e309", "-1.7976931348623158e308",
	"0.000000000000000000000000000000000000000000000000000001e362", "1e362", "1e999", "1e-999", "1e+308", "1E0308", "1e1000", "0e1000", "1e-1000", "9007199254740993", "9007199254740993.5",
}

func checkNumber(t *testing.T, raw []byte) {
	t.Helper()
	mantissa, exponent, _ := bytes.Cut(bytes.ToLower(raw), []byte("e"))
	bounded := len(bytes.TrimLeft(exponent, "+-0")) <= 3
	f, err := strconv.ParseFloat(string(raw), 64)
	want := bounded && err == nil && (f != 0 || !bytes.ContainsAny(mantissa, "123456789"))
	if got := fitsFloat(raw); got != want {
		t.Errorf("%s: fits: %v, want %v", raw, got, want)
	}
	if !want {
		return
	}
	if rat, ok := new(big.Rat).SetString(string(raw)); !ok || isWhole(raw) != rat.IsInt() {
		t.Errorf("%s: whole: %v", raw, isWhole(raw))
	}
}

func TestNumbers(t *testing.T) {
	for _, number := range bigNumbers {
		if len(number) > maxNumberBytes {
			t.Fatalf("%s is too long", number)
		}
		checkNumber(t, []byte(number))
	}
}

// FuzzNumber holds what is said of numbers against strconv and math/big.
func FuzzNumber(f *testing.F) {
	for _, number := range bigNumbers {
		f.Add(number)
	}
	f.Fuzz(func(t *testing.T, number string) {
		if len(number) > maxNumberBytes || strictly([]byte(number)) != nil || strings.Trim(number, "-0123456789.eE+") != "" {
			return
		}
		checkNumber(t, []byte(number))
	})
}
