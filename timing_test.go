package greenapi

import (
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestTiming looks for a difference in time between tokens of one length of which some are almost
// right and some not at all: Welch's t over interleaved samples, as dudect does. It is run by hand, `make timing`, on a machine that does nothing else.
func TestTiming(t *testing.T) {
	if os.Getenv("GREEN_API_TIMING") == "" {
		t.Skip("by hand: make timing")
	}
	const token = "0123456789abcdef0123456789abcdef"
	for _, config := range []struct {
		name string
		auth Auth
	}{
		{"one token", Auth{Token: []string{token}}},
		{"a thousand tokens", Auth{Token: []string{token}, Instance: manyInstances(1000)}},
	} {
		a := newAuth(t, config.auth)
		far, near := tokensLike(token, 0), tokensLike(token, len(token)-4)
		worst := math.Inf(1)
		for range 3 { // what is there is there each time; a neighbour's noise is not
			worst = min(worst, math.Abs(welch(a, far, near)))
		}
		t.Logf("%s: t = %.2f", config.name, worst)
		if worst > 4.5 { // dudect's bound
			t.Errorf("%s: the time of a look-up tells of the token, t = %.2f", config.name, worst)
		}
	}
}

// tokensLike are many headers with tokens of the same length that are right in their first bytes.
// Many, for each has its own place in memory, which tells in nanoseconds, too.
func tokensLike(token string, right int) []http.Header {
	headers := make([]http.Header, 4096)
	for i := range headers {
		text := []byte(token)
		for at := right; at < len(text); at++ {
			text[at] = "ghijklmnopqrstuv"[rand.IntN(16)]
		}
		headers[i] = http.Header{"Authorization": {"Bearer " + string(text)}}
	}
	return headers
}

func manyInstances(n int) map[string][]string {
	instances := make(map[string][]string)
	for i := range n {
		id := strings.Repeat("1", 9) + string([]byte{byte('0' + i/100%10), byte('0' + i/10%10), byte('0' + i%10)})
		instances[id] = []string{"token-of-" + id}
	}
	return instances
}

// welch is Welch's t of the times that two classes of headers take, each without its slowest twentieth.
func welch(a *Auth, x, y []http.Header) float64 {
	const samples, calls = 60_000, 8
	var times [2][]float64
	for range samples {
		class := rand.IntN(2)
		h := x[rand.IntN(len(x))]
		if class == 1 {
			h = y[rand.IntN(len(y))]
		}
		began := time.Now()
		for range calls {
			a.worth(h)
		}
		times[class] = append(times[class], float64(time.Since(began)))
	}
	var mean, variance [2]float64
	for i, all := range times {
		slices.Sort(all)
		all = all[:len(all)*19/20]
		times[i] = all
		for _, v := range all {
			mean[i] += v / float64(len(all))
		}
		for _, v := range all {
			variance[i] += (v - mean[i]) * (v - mean[i]) / float64(len(all)-1)
		}
	}
	return (mean[0] - mean[1]) / math.Sqrt(variance[0]/float64(len(times[0]))+variance[1]/float64(len(times[1])))
}
