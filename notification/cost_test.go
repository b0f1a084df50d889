package notification

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// costly are bodies of any size that ask for as much work as they can.
var costly = []struct {
	name  string
	begin string
	unit  func(i int) string // what the body is full of
	end   string
}{
	{"numbers nobody knows", valid + `,"x":[0`, same(",0"), "]}"},
	{"objects nobody knows", valid + `,"x":[0`, same(",{}"), "]}"},
	{"names", valid, func(i int) string { return `,"` + strconv.FormatInt(int64(i), 36) + `":0` }, "}"},
	{"names with escapes", valid, func(i int) string { return `,"\u0061` + strconv.FormatInt(int64(i), 36) + `":0` }, "}"},
	{"names in many objects", valid + `,"x":[{"":0`, func(i int) string {
		if i%maxListed == 0 {
			return `},{"":0`
		}
		return `,"` + strconv.FormatInt(int64(i%maxListed), 36) + `":0`
	}, "}]}"},
	{"a name with escapes in many objects", valid + `,"x":[0`, same(`,{"\u0061":0}`), "]}"},
	{"more names in many objects", valid + `,"x":[{"":0`, func(i int) string {
		if i%(maxListed+2) == 0 {
			return `},{"":0`
		}
		return `,"` + strconv.FormatInt(int64(i%(maxListed+2)), 36) + `":0`
	}, "}]}"},
	{"spaces", valid, same(" "), "}"},
	{"a text", valid + `,"x":"`, same("x"), `"}`},
	{"a text of escapes", valid + `,"x":"`, same(`\"`), `"}`},
	{"contacts that are null", contacts, same("null,"), "null]}}"},
	{"contacts without anything", contacts, same("{},"), "null]}}"},
	{"contacts with null", contacts, same(`{"displayName":null},`), "null]}}"},
	{"votes", poll, same(`{"optionVoters":["",null,""]},`), "{}]}}}"},
	{"whole fractions", calls, same("1.0,"), "1.0]}"},

	{"contacts that are numbers", contacts, same("5,"), "5]}}"},
	{"contacts that are tiny numbers", contacts, same("1e-300,"), "5]}}"},
	{"contacts that are numbers next to the largest", contacts, same("1.7976931348623157e308,"), "5]}}"},
	{"contacts that are texts", contacts, same(`"\u0061",`), "5]}}"},
	{"contacts that nest", contacts, same(strings.Repeat("[", 90) + strings.Repeat("]", 90) + ","), "5]}}"},
	{"contacts with a number", contacts, same(`{"displayName":5},`), "5]}}"},
	{"the last contact", contacts, same("null,"), "5]}}"},
	{"voters that are numbers", poll, same(`{"optionVoters":[5,5,5,5,5,5,5,5]},`), "5]}}}"},
	{"no timestamp, and names", strings.Replace(valid, `"timestamp"`, `"T"`, 1), func(i int) string { return `,"` + strconv.FormatInt(int64(i), 36) + `":0` }, "}"},

	{"own: hashes that collide", own("unique"), collide, "0]}"},
	{"own: elements of a list", own("enum"), same("1,"), "0]}"},
	{"own: elements that are not in a list", own("enum"), same("5,"), "0]}"},
	{"own: members that are not allowed", strings.TrimSuffix(own("closed"), `,"x":[`), func(i int) string { return `,"` + strconv.FormatInt(int64(i), 36) + `":0` }, "}"},
	{"own: a pattern", strings.TrimSuffix(own("text"), "[") + `"`, same("a"), `"}`},
	{"own: texts nobody knows", own("text"), same(`"a",`), `"a"]}`},

	{"malformed: cut off behind numbers", valid + `,"x":[0`, same(",0"), ""},
	{"malformed: cut off in a text", valid + `,"x":"`, same(`\"`), ""},
	{"malformed: a name twice, after many", valid, func(i int) string { return `,"` + strconv.FormatInt(int64(i), 36) + `":0` }, `,"10":0}`},
	{"malformed: twins", valid, func(i int) string { return `,"typeWebhook\u0000` + strconv.FormatInt(int64(i), 36) + `":0` }, "}"},
	{"malformed: a twin, after numbers", valid + `,"x":[0`, same(",0"), `],"TYPEWEBHOOK":0}`},
	{"malformed: objects that nest", valid, same(`,"x":{"a":0`), "}"},
}

const (
	valid = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001},"timestamp":1767225600,"idMessage":"A1",` +
		`"senderData":{"chatId":"79007654321@c.us"},"messageData":{"typeMessage":"new"}`
	contacts = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001},"timestamp":1767225600,"idMessage":"A1",` +
		`"senderData":{"chatId":"79007654321@c.us"},"messageData":{"typeMessage":"contactsArrayMessage","contacts":[`
	poll = `{"typeWebhook":"incomingMessageReceived","instanceData":{"idInstance":1101000001},"timestamp":1767225600,"idMessage":"A1",` +
		`"senderData":{"chatId":"79007654321@c.us"},"messageData":{"typeMessage":"pollUpdateMessage","pollMessageData":{"votes":[`
	calls = `{"typeWebhook":"list","instanceData":{"idInstance":1101000001},"integers":[`
)

// ownSchemas ask for what only the library knows.
var ownSchemas = map[string]string{
	"list.json":   `{"properties":{"integers":{"type":"array","items":{"type":"integer"}}}}`,
	"unique.json": `{"properties":{"x":{"uniqueItems":true}}}`,
	"enum.json":   `{"properties":{"x":{"items":{"enum":[0,1,2]}}}}`,
	"closed.json": `{"additionalProperties":{"type":["string","object"]}}`,
	"text.json":   `{"properties":{"x":{"pattern":"^(a|x)*$"}}}`,

	// The built-in one does not look so deep.
	"messageData.pollUpdateMessage.json": `{"properties":{"pollMessageData":{"properties":{"votes":{"items":{"type":"object",` +
		`"properties":{"optionVoters":{"type":["array","null"],"items":{"type":["string","null"]}}}}}}}}}`,
}

func own(typ string) string {
	return `{"typeWebhook":"` + typ + `","instanceData":{"idInstance":1101000001},"x":[`
}

// collide is another array of arrays for each number, always of as many: to the library, they all have
// the same hash.
func collide(i int) string {
	text := "[[],[]]"
	for bit := range 16 {
		if i>>bit&1 == 0 {
			text = "[" + text + "]"
		} else {
			text = "[[]," + text[1:]
		}
	}
	return text + ","
}

func same(unit string) func(int) string {
	return func(int) string { return unit }
}

// full returns a body of a size.
func full(size int, begin string, unit func(int) string, end string) []byte {
	body := make([]byte, 0, size+64)
	body = append(body, begin...)
	for i := 0; ; i++ {
		more := unit(i)
		if len(body)+len(more)+len(end) > size {
			return append(body, end...)
		}
		body = append(body, more...)
	}
}

const mebibyte = 1 << 20

// bounds of what one body may cost.
type cost struct {
	size   int
	cpu    time.Duration
	memory int
}

var costs = []cost{{mebibyte, 50 * time.Millisecond, 32 * mebibyte}, {16 * mebibyte, 800 * time.Millisecond, 64 * mebibyte}}

// worst are those of which each test tries everything; make cost does that for all. Bodies of 16 MiB
// are for make proofs.
var worst = []string{"names", "contacts that are numbers", "voters that are numbers", "malformed: a name twice, after many"}

// eachCostly runs a test with the costly bodies of each size, or with the worst only.
func eachCostly(onlyWorst bool, test func(name string, body []byte, most cost, all bool)) {
	all := os.Getenv("GREEN_API_COST") != ""
	large := (all || os.Getenv("GREEN_API_PROOFS") == "1") && !raceDetector
	for _, most := range costs {
		if most.size > mebibyte && !large {
			continue
		}
		for _, c := range costly {
			if !all && !slices.Contains(worst, c.name) && (onlyWorst || raceDetector || most.size > mebibyte) {
				continue
			}
			name := fmt.Sprintf("%d MiB: %s", most.size/mebibyte, c.name)
			test(name, full(most.size, c.begin, c.unit, c.end), most, all)
		}
	}
}

// TestCost parses and validates bodies that ask for as much as they can. What is allocated is the
// upper bound of the memory that they need. `make cost` asks for the CPU, too, and prints all figures.
func TestCost(t *testing.T) {
	schemas := load(t, folder(t, ownSchemas))
	eachCostly(false, func(name string, body []byte, most cost, all bool) {
		said := ""
		used := measure(func() {
			n, err := schemas.Parse(body)
			if said = fmt.Sprint(err); err == nil {
				faults, more := schemas.Faults(n)
				said = fmt.Sprintf("%d faults, more: %v", len(faults), more)
			}
		})
		if strings.HasPrefix(name, "1 MiB: malformed") != strings.HasPrefix(said, "byte") && most.size == mebibyte {
			t.Errorf("%s: got %s", name, said)
		}
		if strings.HasSuffix(name, "that are numbers") && said != "100 faults, more: true" || strings.HasSuffix(name, ": votes") && said != "0 faults, more: false" {
			t.Errorf("%s: got %s", name, said)
		}
		if all {
			t.Logf("%-60s %4d ms  %5.1f MiB  %s", name, used.cpu.Milliseconds(), float64(used.allocated)/mebibyte, said)
		}
		if used.allocated > most.memory && !raceDetector { // whose pools keep nothing for sure
			t.Errorf("%s: allocates %d MiB", name, used.allocated/mebibyte)
		}
		if all && used.cpu > most.cpu {
			t.Errorf("%s: takes %v", name, used.cpu)
		}
	})
}

// TestCostAtOnce has eight bodies come at the same time, which must not need eight times the memory.
func TestCostAtOnce(t *testing.T) {
	const times, memory = 8, 64 * mebibyte
	if raceDetector {
		t.Skip("it needs memory of its own")
	}
	schemas := load(t, folder(t, ownSchemas))
	eachCostly(true, func(name string, body []byte, most cost, all bool) {
		if most.size > mebibyte && !all {
			return
		}
		var bodies [times][]byte
		for i := range bodies {
			bodies[i] = bytes.Clone(body)
		}
		used := measureAtOnce(times, func(i int) {
			if n, err := schemas.Parse(bodies[i]); err == nil {
				schemas.Faults(n)
			}
		})
		if all {
			t.Logf("%d times %-60s %5d ms  %5.1f MiB", times, name, used.cpu.Milliseconds(), float64(used.peak)/mebibyte)
		}
		if used.peak > memory {
			t.Errorf("%d times %s: needs %d MiB", times, name, used.peak/mebibyte)
		}
		if all && used.cpu > times*most.cpu {
			t.Errorf("%d times %s: takes %v", times, name, used.cpu)
		}
		runtime.KeepAlive(&bodies)
	})
}

// used is what something has used.
type used struct {
	cpu       time.Duration // of the process; 0 on systems where it is not known
	allocated int
	peak      int // of the heap, more than before
}

// measure runs a function.
func measure(run func()) used {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := cpuTime()
	run()
	cpu = cpuTime() - cpu
	runtime.ReadMemStats(&after)
	return used{cpu: cpu, allocated: int(after.TotalAlloc - before.TotalAlloc)}
}

// measureAtOnce runs a function several times at once, and looks all the time how large the heap is. Each look
// stops the world.
func measureAtOnce(times int, run func(i int)) used {
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	peak, stop := make(chan int), make(chan struct{})
	go func() {
		most := uint64(0)
		for {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			most = max(most, now.HeapAlloc)
			select {
			case <-stop:
				peak <- int(most) - int(before.HeapAlloc)
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	u := measure(func() {
		var all sync.WaitGroup
		for i := range times {
			all.Go(func() { run(i) })
		}
		all.Wait()
	})
	close(stop)
	u.peak = <-peak
	return u
}
