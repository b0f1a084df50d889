package tell

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/greenapi-community/caddy-green-api/internal/outcome"
	"github.com/greenapi-community/caddy-green-api/internal/reason"
	"github.com/greenapi-community/caddy-green-api/notification"
)

type key struct {
	reason reason.Reason
	typ    string
}

// A group is what has been collected for one alert.
type group struct {
	key
	level       zapcore.Level
	count       int
	first, last time.Time
	instances   []string // the first maxInstances
	others      bool     // there are more
	example     string
	more        string
	ends        []outcome.Note // of troubles, if the reason is Recovered
}

const maxInstances = 20

func (g *group) add(n outcome.Note) {
	if g.count == 0 {
		g.first = n.At
	}
	g.count++
	g.last = n.At
	g.level = max(g.level, n.Level)
	if n.Instance != "" && !slices.Contains(g.instances, n.Instance) {
		if len(g.instances) < maxInstances {
			g.instances = append(g.instances, n.Instance)
		} else {
			g.others = true
		}
	}
	if g.example == "" {
		g.example = n.Example
	}
	if n.More != "" {
		g.more = n.More
	}
}

// merge adds what had been collected before.
func (g *group) merge(older *group) {
	newer := *g
	*g = *older
	g.count += newer.count
	g.level = max(older.level, newer.level)
	if newer.last.After(g.last) {
		g.last = newer.last
	}
	for _, instance := range newer.instances {
		if !slices.Contains(g.instances, instance) && len(g.instances) < maxInstances {
			g.instances = append(g.instances, instance)
		}
	}
	g.others = older.others || newer.others
	if g.example == "" {
		g.example = newer.example
	}
	if newer.more != "" {
		g.more = newer.more
	}
}

// values returns the values of a body's placeholders.
func (g *group) values() map[string]string {
	instances := strings.Join(g.instances, ", ")
	if g.others {
		instances += ", …"
	}
	host, _ := os.Hostname()
	return map[string]string{
		"{alert.text}": g.text(host, instances), "{alert.reason}": string(g.reason), "{alert.type}": g.typ, "{alert.level}": g.level.String(),
		"{alert.count}": strconv.Itoa(g.count), "{alert.first}": g.first.UTC().Format(time.RFC3339), "{alert.last}": g.last.UTC().Format(time.RFC3339),
		"{alert.instances}": instances, "{alert.example}": g.example, "{alert.host}": host,
	}
}

func (g *group) text(host, instances string) string {
	var text strings.Builder
	fmt.Fprintf(&text, "GREEN-API edge %s: %s (%s", host, g.reason.Sentence(), g.reason)
	if g.typ != notification.KindNone && g.typ != "" {
		text.WriteString(", " + g.typ)
	}
	times := "once at"
	if g.count != 1 {
		times = strconv.Itoa(g.count) + " times since"
	}
	fmt.Fprintf(&text, "), %s %s", times, g.first.UTC().Format("2006-01-02 15:04:05 MST"))
	if instances != "" {
		text.WriteString(", instance " + instances)
	}
	text.WriteString(".")
	if g.more != "" {
		text.WriteString(" " + g.more)
	}
	if g.example != "" {
		text.WriteString(" An example is in the quarantine: " + g.example)
	}
	return text.String()
}
