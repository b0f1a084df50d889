package notification

import "bytes"

// decisive are the names that say what a notification is and whose it is. Some parsers, such as
// encoding/json, take typewebhook for typeWebhook, and use the last of two; in C, a name ends at a NUL.
// Such a handler would read something else than what was judged here, and a token of one instance could
// speak for another.
var decisive = map[string][]string{
	"":             {"typeWebhook", "instanceData", "messageData"},
	"instanceData": {"idInstance"},
	"messageData":  {"typeMessage"},
}

// twin returns the path to a decisive name whose object also has it in another case, or followed by a NUL
// and more; nil if there is none.
func twin(root map[string]any) []string {
	for parent, names := range decisive {
		members, path := root, []string(nil)
		if parent != "" {
			members, _ = root[parent].(map[string]any)
			path = []string{parent}
		}
		for member := range members {
			for _, name := range names {
				if isTwinName([]byte(member), name) {
					return append(path, name)
				}
			}
		}
	}
	return nil
}

func isTwinName(member []byte, name string) bool {
	before, _, _ := bytes.Cut(member, []byte{0})
	return string(member) != name && bytes.EqualFold(before, []byte(name))
}

// isTwin is twin for a scan: it reports whether the name of the next member, which Parse does not read,
// equals a decisive one except for case or a NUL.
func (s *scan) isTwin(name []byte) bool {
	if nul := bytes.IndexByte(name, 0); nul >= 0 {
		name = name[:nul]
	}
	const shortest, longest = 10, 16 // case folding may make it longer
	if len(name) < shortest || len(name) > longest || len(s.open) > 2 {
		return false
	}
	parent := ""
	if len(s.open) == 2 {
		switch s.tokens[max(s.open[1], 0)].name { // an unlisted one has another name
		case nameInstanceData:
			parent = "instanceData"
		case nameMessageData:
			parent = "messageData"
		default:
			return false
		}
	}
	for _, decisive := range decisive[parent] {
		if bytes.EqualFold(name, []byte(decisive)) {
			return true
		}
	}
	return false
}
