// Package doctor finds what in a config or on its machine loses or exposes notifications, and says how to
// fix it.
package doctor

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// A Finding is one thing in a config or on its machine that is probably a mistake.
type Finding struct {
	Kind    Kind
	Level   Level
	Where   string // the block, address, file or unit
	Message string
	Fix     string
	Fields  []zap.Field // for the log record of findings that are logged at load; mostly with the fix
}

// A Kind names a finding. Kinds are a closed list: scripts depend on them.
type Kind string

// All kinds. docs/troubleshooting.md explains each.
const (
	DoesNotLoad       Kind = "does_not_load"
	NoGreenAPI        Kind = "no_green_api"
	Empty200          Kind = "empty_200"
	OnePath           Kind = "one_path"
	OpenToAll         Kind = "open_to_all"
	FileForOthers     Kind = "file_for_others"
	ShortToken        Kind = "short_token"
	OldAddresses      Kind = "old_addresses"
	ProxiesNotStrict  Kind = "proxies_not_strict"
	AdminOpen         Kind = "admin_open"
	NoListenerWrapper Kind = "no_listener_wrapper"
	ShortGrace        Kind = "short_grace_period"
	ShortStop         Kind = "short_stop_time"
	StopNotSeen       Kind = "stop_time_not_seen"
	VolatileDisk      Kind = "quarantine_volatile"
	NoVolume          Kind = "quarantine_without_volume"
	QueueVolatile     Kind = "queue_volatile"
	QueueNoVolume     Kind = "queue_without_volume"
	DiskLow           Kind = "disk_low"
	Clock             Kind = "clock"
	PortShared        Kind = "port_shared"
	PortTaken         Kind = "port_taken"
)

// Kinds is the closed list.
var Kinds = []Kind{
	DoesNotLoad, NoGreenAPI, Empty200, OnePath, OpenToAll, FileForOthers, ShortToken, OldAddresses, ProxiesNotStrict, AdminOpen,
	NoListenerWrapper, ShortGrace, ShortStop, StopNotSeen, VolatileDisk, NoVolume, QueueVolatile,
	QueueNoVolume, DiskLow, Clock, PortShared, PortTaken,
}

// A Level is the severity of a finding.
type Level string

// Error loses notifications, or lets strangers in. Warn does so if something else happens, too. Info is
// good to know.
const (
	Error Level = "error"
	Warn  Level = "warn"
	Info  Level = "info"
)

// A Config is what the doctor needs to know about a config that loads. Its servers are provisioned.
type Config struct {
	Blocks     []Block
	Files      []File
	Quarantine Store
	Queue      Store      // the zero value if there is none on this machine
	Addresses  time.Time  // the date of the built-in list of GREEN-API's addresses
	Sender     netip.Addr // one of them
}

// A Block is one green_api block.
type Block struct {
	Name     string
	Handler  caddyhttp.MiddlewareHandler // the block's handler in the routes
	Server   *caddyhttp.Server           // nil if unknown
	Open     bool                        // neither address nor token keeps anybody out
	Shortest int                         // length of its shortest token; 0 if it has none
	Vendor   bool                        // it lets in the built-in list of GREEN-API's addresses
	Timeout  time.Duration               // how long after the beginning of a stop a handler may still be at work
	Queued   bool                        // it has a queue
}

// A Store is where notifications are that have been answered 200: the quarantine, or the queue.
type Store struct {
	Path, Said string // its directory, and as in the config
	File       string // the path of its file
	MaxSize    int64
}

// Examine returns the findings about a config that has started.
func Examine(c Config) (found []Finding) {
	found = unanswered(c.Blocks, c.Sender)
	for _, b := range c.Blocks {
		found = append(found, onePath(b)...)
	}
	for _, b := range c.Blocks {
		found = append(found, anyone(b)...)
	}
	for _, f := range c.Files {
		found = append(found, usedByOthers(f)...)
	}
	return found
}

// A Patient is a config, which need not run, and the machine that it is meant for.
type Patient struct {
	File    string   // of the config
	Refused error    // why it does not load
	Written *Written // nil if it is not even JSON
	Config  *Config  // nil if it does not load
	Machine Machine
}

// Diagnose returns the findings about a patient, the worst first.
func Diagnose(p Patient) (found []Finding) {
	var refused Kind
	if p.Refused != nil {
		why := refusal(p.File, p.Refused)
		found, refused = append(found, why), why.Kind
	}
	written, c := Written{}, Config{}
	if p.Written != nil {
		written = *p.Written
		found = append(found, slices.DeleteFunc(written.examine(), func(f Finding) bool { return f.Kind == refused })...)
		found = append(found, ports(written, p.Machine)...)
	}
	if p.Config != nil {
		c = *p.Config
		found = append(found, Examine(c)...)
		found = append(found, c.examine(p.File, p.Machine)...)
	}
	found = append(found, shortStop(written, c, p.Machine)...)
	found = append(found, p.Machine.clock(c.Addresses)...)
	rank := []Level{Error, Warn, Info}
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Compare(slices.Index(rank, a.Level), slices.Index(rank, b.Level)) })
	return found
}

// examine returns the findings that are not logged at each load.
func (c Config) examine(file string, m Machine) (found []Finding) {
	if len(c.Blocks) == 0 {
		return []Finding{{
			Kind: NoGreenAPI, Level: Warn, Where: file, Message: "the config has no green_api block",
			Fix: "name the file that the edge runs with, by --config",
		}}
	}
	for _, b := range c.Blocks {
		found = append(found, shortToken(b)...)
	}
	found = append(found, oldAddresses(c, m.Now)...)
	found = append(found, lost(c.Quarantine, ofQuarantine, m)...)
	if c.Queue.Path != c.Quarantine.Path {
		found = append(found, lost(c.Queue, ofQueue, m)...)
	}
	return append(found, c.low(m)...)
}
