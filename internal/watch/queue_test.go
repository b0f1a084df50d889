package watch

import (
	"slices"
	"testing"
)

func TestTrouble(t *testing.T) {
	var trouble Trouble
	for i, row := range [][3]bool{{false, false, false}, {true, true, false}, {true, false, false}, {false, false, true}, {false, false, false}, {true, true, false}} {
		if began, ended := trouble.See(row[0]); began != row[1] || ended != row[2] {
			t.Errorf("look %d: %v, %v", i+1, began, ended)
		}
	}
}

func TestTroubles(t *testing.T) {
	var troubles Troubles
	for i, row := range [][3][]string{{nil, nil, nil}, {{"a", "b"}, {"a", "b"}, nil}, {{"b", "c"}, {"c"}, {"a"}}, {{"a", "b"}, {"a"}, {"c"}}, {nil, nil, {"a", "b"}}} {
		began, ended := troubles.See(row[0])
		slices.Sort(ended)
		if !slices.Equal(began, row[1]) || !slices.Equal(ended, row[2]) {
			t.Errorf("look %d: %q, %q", i+1, began, ended)
		}
	}
}
