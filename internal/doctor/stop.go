package doctor

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	defaultTimeout = 170 * time.Second // of deliver
	stopMargin     = 10 * time.Second  // for what comes after the last answer
)

// shortStop finds a stop timeout that is shorter than a handler may take: what it is working on would be
// cut off.
func shortStop(written Written, c Config, m Machine) (found []Finding) {
	longest, option := time.Duration(0), "deliver timeout"
	for _, b := range c.Blocks {
		if b.Timeout <= longest {
			continue
		}
		longest, option = b.Timeout, "deliver timeout"
		if b.Queued && longest > defaultTimeout {
			option = "deliver attempt_timeout"
		}
	}
	if longest == 0 {
		longest = defaultTimeout
	}
	if written.Grace > 0 && written.Grace < longest {
		found = append(found, Finding{
			Kind: ShortGrace, Level: Error, Where: "grace_period " + written.Grace.String(),
			Message: fmt.Sprintf("a stop cuts off what a handler works at, which may take %s ('%s')", longest, option),
			Fix:     fmt.Sprintf("say 'grace_period %s' in the global options", seconds(longest+stopMargin/2)),
		})
	}
	need := longest + stopMargin
	for _, unit := range m.Units {
		if unit.Stop == 0 || unit.Stop >= need {
			continue
		}
		found = append(found, Finding{
			Kind: ShortStop, Level: Error, Where: unit.File,
			Message: fmt.Sprintf("systemd kills the edge %s after a stop or restart has begun, and a handler may take %s", unit.Stop, longest),
			Fix: fmt.Sprintf("'systemctl edit %s' with the lines '[Service]' and 'TimeoutStopSec=%s', then 'systemctl daemon-reload'",
				unit.Name, strings.TrimSuffix(seconds(need), "s")),
		})
	}
	if m.Container != "" {
		fix := "'stop_grace_period: " + seconds(need) + "' in compose.yaml, or 'docker run --stop-timeout " + strings.TrimSuffix(seconds(need), "s") + "'"
		if m.Container == Kubernetes {
			fix = "'terminationGracePeriodSeconds: " + strings.TrimSuffix(seconds(need+stopMargin), "s") + "' in the pod's spec"
		}
		found = append(found, Finding{
			Kind: StopNotSeen, Level: Info, Where: m.Container,
			Message: fmt.Sprintf("how long a stop may take cannot be seen from inside; a handler may take %s, and the default is 10 or 30 s", longest),
			Fix:     fix,
		})
	}
	return found
}

// seconds returns a duration in whole seconds.
func seconds(d time.Duration) string { return strconv.Itoa(int(d/time.Second)) + "s" }
