package api

import (
	"net/http"
	"slices"
	"sort"

	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// Summary says how many entries the quarantine has.
type Summary struct {
	Entries    int            `json:"entries"`
	Unreadable int            `json:"unreadable,omitempty"` // entries that cannot be read, counted by day only
	Reasons    map[string]int `json:"reasons"`
	Types      map[string]int `json:"types"`

	// The instances with most entries. Entries that name none are listed under "".
	Instances      []InstanceCount `json:"instances"`
	OtherInstances int             `json:"other_instances"` // entries of instances that are not listed

	Days      []DayCount `json:"days"`                 // of receipt, in UTC, the newest first
	OtherDays int        `json:"other_days,omitempty"` // entries of days that are not listed
}

// InstanceCount is how many entries an instance has.
type InstanceCount struct {
	Instance string `json:"instance"`
	Entries  int    `json:"entries"`
}

// DayCount is how many entries a day has.
type DayCount struct {
	Day     string `json:"day"`
	Entries int    `json:"entries"`
}

const (
	mostInstances = 50
	mostDays      = 400
)

// summary returns how many entries there are, by reason, type, instance and day.
func (e *Edge) summary(w http.ResponseWriter, _ *http.Request) error {
	store, release, err := e.Quarantine()
	if err != nil {
		return err
	}
	defer release()
	sum, err := store.Summary()
	if err != nil {
		return err
	}
	return writeJSON(w, summaryOf(sum))
}

func summaryOf(sum quarantine.Summary) Summary {
	s := Summary{
		Entries: sum.Entries, Unreadable: sum.Unreadable, Reasons: byName(sum.Reasons), Types: byName(sum.Types),
		Instances: []InstanceCount{}, OtherInstances: sum.Instances.Others, Days: []DayCount{}, OtherDays: sum.Days.Others,
	}
	instances, others := first(sum.Instances.Each, mostInstances, func(a, b quarantine.Count) bool {
		return a.Entries > b.Entries || a.Entries == b.Entries && a.Name < b.Name
	})
	for _, c := range instances {
		s.Instances = append(s.Instances, InstanceCount{c.Name, c.Entries})
	}
	days, otherDays := first(sum.Days.Each, mostDays, func(a, b quarantine.Count) bool { return a.Name > b.Name })
	for _, c := range days {
		s.Days = append(s.Days, DayCount{c.Name, c.Entries})
	}
	s.OtherInstances += others
	s.OtherDays += otherDays
	return s
}

// first returns the first counts in an order, at most most, and how many entries the others have. To sort them all takes
// longer than everything else if there are many instances.
func first(counts []quarantine.Count, most int, before func(a, b quarantine.Count) bool) (list []quarantine.Count, others int) {
	for _, c := range counts {
		if len(list) == most {
			if !before(c, list[most-1]) {
				others += c.Entries
				continue
			}
			others += list[most-1].Entries
			list = list[:most-1]
		}
		at := sort.Search(len(list), func(i int) bool { return before(c, list[i]) })
		list = slices.Insert(list, at, c)
	}
	return list, others
}

// otherNames counts what is not counted by name.
const otherNames = "other"

func byName(counts quarantine.Counts) map[string]int {
	all := make(map[string]int)
	for _, c := range counts.Each {
		all[c.Name] += c.Entries
	}
	if counts.Others > 0 {
		all[otherNames] += counts.Others
	}
	return all
}
