// Command edge sends the same notifications through green_api, the same Caddy without it, nginx, nginx with a check
// in njs, and HAProxy, with configs that do the same as far as possible, and prints what each costs. The
// configs are in the folder configs. It is a benchmark, not a test: it fails only if an edge does not
// answer as it should.
//
// The edges take turns, in rounds. CPU is what the operating system counts for the edge's processes
// (/proc/PID/stat), per request. The generator and the upstream run on the same machine and are not
// included. Ratios are computed within each round, so that a disturbance of the machine affects both sides.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/greenapi-community/caddy-green-api/bench/load"
)

var (
	rounds      = flag.Int("rounds", 5, "in which the edges take turns")
	seconds     = flag.Float64("seconds", 3, "of the first case and its measured rate, each; the other cases have half of it")
	connections = flag.Int("connections", 32, "that are kept open and busy")
	rate        = flag.Float64("rate", 4000, "requests a second at which the time of an answer is measured, beside full load")
	only        = flag.String("only", "", "edges to run, with commas: green_api,caddy,respond,nginx,njs,haproxy,none")
	onlyCases   = flag.String("cases", "", "cases to run, with commas")
	modules     = flag.String("nginx-modules", "", "directory of nginx's modules, if it is none of the usual")
	xcaddy      = flag.Bool("xcaddy", false, "run the build that xcaddy makes by default instead of cmd/caddy")
	otherBuild  = flag.String("other", "", "another build of cmd/caddy, or a script that starts it, to run beside this one")
	profileTo   = flag.String("profile", "", "write a CPU profile of green_api in the first case that runs into this file")
)

func main() {
	log.SetFlags(0)
	load.BeUpstream(nil)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err) //nolint:gocritic // the process ends
	}
}

// run leaves no process behind if ctx ends early.
func run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "edge-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // nginx's workers run as another user
		return err
	}
	edges, err := findEdges(dir, *modules, *otherBuild, *xcaddy)
	if err != nil {
		return err
	}
	fmt.Printf("%s, %s, %d CPUs; %d rounds of %gs, %d connections\n", time.Now().Format("2006-01-02"), runtime.Version(),
		runtime.NumCPU(), *rounds, *seconds, *connections)
	printVersions(edges)
	upstream, stop, err := load.StartUpstream()
	if err != nil {
		return err
	}
	defer stop()
	b := &bench{dir: dir, upstream: upstream}
	for i := range cases {
		c := &cases[i]
		if !listed(*onlyCases, c.name) {
			continue
		}
		if err := b.run(ctx, c, edges); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// listed reports whether a comma-separated list is empty or contains the name.
func listed(list, name string) bool {
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}

type bench struct {
	dir, upstream string
}

// result is the result of one edge in one round.
type result struct {
	perSecond   float64
	cpu         time.Duration // per request
	full, rated load.Load
	memory      int   // KiB
	failed      error // why the numbers cannot be used
}

// run runs the edges of a case in turns and prints a table.
func (b *bench) run(ctx context.Context, c *benchCase, edges []*edge) error {
	edges = slices.DeleteFunc(slices.Clone(edges), func(e *edge) bool {
		return e.missing != "" || !listed(*only, e.name) || !slices.Contains(c.edges, e.name)
	})
	if len(edges) == 0 {
		return nil
	}
	n := c.connections
	if n == 0 {
		n = *connections
	}
	for _, e := range edges {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := e.start(b.dir, b.upstream, c.setting()); err != nil {
			return fmt.Errorf("%s: %w", e.name, err)
		}
		defer e.stop()
		// A short run fills caches and pools, and reveals what does not work.
		if _, err := load.Send(e.Listen, c.requests(e.Listen, n), nil, c.status, 0, 200*time.Millisecond); err != nil {
			return fmt.Errorf("%s: %w\n%s", e.name, err, e.output.String())
		}
	}
	results, err := b.takeTurns(ctx, c, edges, n)
	if err != nil {
		return err
	}
	printTable(c, edges, results, n)
	return nil
}

// takeTurns measures each edge in each round. What an edge comes after must not count.
func (b *bench) takeTurns(ctx context.Context, c *benchCase, edges []*edge, n int) (map[string][]result, error) {
	results := make(map[string][]result)
	for round := range *rounds {
		for i := range edges { // each round begins with another one
			e := edges[(i+round)%len(edges)]
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			r, err := b.measure(c, e, n)
			if err != nil {
				return nil, fmt.Errorf("%s: %w\n%s", e.name, err, e.output.String())
			}
			results[e.name] = append(results[e.name], r)
		}
	}
	return results, nil
}

func (b *bench) measure(c *benchCase, e *edge, n int) (r result, err error) {
	requests := c.requests(e.Listen, n)
	length := time.Duration(*seconds * float64(time.Second))
	if !c.rated {
		length /= 2
	}
	if *profileTo != "" && e.name == "green_api" {
		file := *profileTo
		*profileTo = ""
		over := make(chan error)
		go func() { over <- e.profile(file, max(1, int(length.Seconds()))) }()
		defer func() {
			if profileErr := <-over; err == nil {
				err = profileErr
			}
		}()
	}
	before, usageErr := e.usage()
	full, err := load.Send(e.Listen, requests, nil, c.status, 0, length)
	if err != nil {
		return r, err
	}
	after, _ := e.usage()
	r = result{perSecond: float64(full.Requests) / full.Took.Seconds(), full: *full, failed: usageErr, memory: after.Memory}
	if full.Requests > 0 {
		r.cpu = (after.CPU - before.CPU) / time.Duration(full.Requests)
	}
	if !c.rated || *rate == 0 {
		return r, nil
	}
	rated, err := load.Send(e.Listen, requests, nil, c.status, *rate, length)
	if err != nil {
		return r, err
	}
	r.rated = *rated
	return r, nil
}

// printTable prints the medians over all rounds, and the ratios within each.
func printTable(c *benchCase, edges []*edge, results map[string][]result, n int) {
	fmt.Printf("\n%s: %s; %d connections\n\n", c.name, c.about, n)
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer table.Flush()
	against := "caddy"
	if !slices.ContainsFunc(edges, func(e *edge) bool { return e.name == against }) {
		against = "respond"
	}
	head := "edge\treq/s\tCPU µs/req\tMiB\tp50\tp99\t"
	if c.rated && *rate > 0 {
		head += fmt.Sprintf("p50 at %g/s\tp99 at %g/s\t", *rate, *rate)
	}
	if results[against] != nil {
		head += "CPU to " + against + "\treq/s to " + against + "\t"
	}
	fmt.Fprintln(table, head)
	for _, e := range edges {
		fmt.Fprintln(table, row(c, e, results[e.name], results[against]))
	}
}

// row returns an edge's line in the table of a case. Its results are compared with those of another edge,
// if there are any.
func row(c *benchCase, e *edge, all, others []result) string {
	cpu := fmt.Sprintf("%.1f", median(all, func(r result) float64 { return float64(r.cpu) / 1e3 }))
	if e.command == nil {
		cpu = "-"
	}
	if all[0].failed != nil {
		cpu = all[0].failed.Error()
	}
	text := fmt.Sprintf("%s\t%.0f\t%s\t%d\t%s\t%s\t", e.name, median(all, func(r result) float64 { return r.perSecond }), cpu,
		all[len(all)-1].memory>>10, quantile(all, 0.5, false), quantile(all, 0.99, false))
	if c.rated && *rate > 0 {
		text += quantile(all, 0.5, true) + "\t" + quantile(all, 0.99, true) + "\t"
	}
	if others != nil {
		text += ratio(all, others, func(r result) float64 { return float64(r.cpu) }) + "\t" +
			ratio(all, others, func(r result) float64 { return r.perSecond }) + "\t"
	}
	return text
}

func median(all []result, of func(result) float64) float64 {
	values := make([]float64, len(all))
	for i, r := range all {
		values[i] = of(r)
	}
	slices.Sort(values)
	return (values[len(values)/2] + values[(len(values)-1)/2]) / 2
}

func quantile(all []result, q float64, rated bool) string {
	value := time.Duration(median(all, func(r result) float64 {
		if rated {
			return float64(r.rated.Quantile(q))
		}
		return float64(r.full.Quantile(q))
	}))
	if value > 10*time.Millisecond {
		return value.Round(time.Millisecond).String()
	}
	return value.Round(10 * time.Microsecond).String()
}

// ratio returns the median, minimum and maximum of the ratios of all rounds.
func ratio(all, others []result, of func(result) float64) string {
	ratios := make([]float64, len(all))
	for i := range all {
		if of(others[i]) == 0 || of(all[i]) == 0 {
			return "-"
		}
		ratios[i] = of(all[i]) / of(others[i])
	}
	slices.Sort(ratios)
	middle := (ratios[len(ratios)/2] + ratios[(len(ratios)-1)/2]) / 2
	return fmt.Sprintf("%.2f (%.2f–%.2f)", middle, ratios[0], ratios[len(ratios)-1])
}
