package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// page returns the files of the page by their names in static/.
func page(t *testing.T) map[string]string {
	t.Helper()
	files := make(map[string]string)
	root := os.DirFS("static")
	if err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(root, name)
		files[name] = string(text)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

// scripts returns the page's own modules.
func scripts(t *testing.T) map[string]string {
	t.Helper()
	own := page(t)
	maps.DeleteFunc(own, func(name, _ string) bool { return path.Ext(name) != ".js" || strings.HasPrefix(name, "vendor/") })
	return own
}

// TestVendor holds that what others wrote is as they published it, but for one specifier: a browser does not know where
// the bare name is.
func TestVendor(t *testing.T) {
	want := map[string]string{ // SHA-256 of what is in the packages
		"vendor/preact-11.2.0/preact.mjs": "bdcbd9abdf2c77c5c45326eab42191e949222d479d0d5f69467387a77040cb55",
		"vendor/preact-11.2.0/hooks.mjs":  "e862ab2973aa6455eaa0f77c5d832d2157d6be59a17c8ba546550a575b58c6b4",
		"vendor/preact-11.2.0/LICENSE":    "1fe6958409c8c257a70c587a18b6f7f412b179b456630790d30b2ec9a8e4b7d4",
		"vendor/htm-3.1.1/htm.module.js":  "ab33dd3f38059b9be4d5f5350128eefb2356639c4e0bbe9d9e8b3ba75847e9e4",
		"vendor/htm-3.1.1/LICENSE":        "740725f7252e750af735d0028cc534970772f513331e9f68150fede8fb3ce00f",
	}
	files := page(t)
	for name, text := range files {
		if !strings.HasPrefix(name, "vendor/") || strings.HasSuffix(name, ".d.mts") || strings.HasSuffix(name, ".d.ts") {
			continue
		}
		if path.Base(name) == "hooks.mjs" {
			if n := strings.Count(text, `from"./preact.mjs"`); n != 1 {
				t.Errorf("%s imports ./preact.mjs %d times; want once", name, n)
			}
			text = strings.Replace(text, `from"./preact.mjs"`, `from"preact"`, 1)
		}
		sum := sha256.Sum256([]byte(text))
		if got := hex.EncodeToString(sum[:]); got != want[name] {
			t.Errorf("%s has the SHA-256 %s; want %q", name, got, want[name])
		}
	}
	for name := range want {
		if files[name] == "" {
			t.Errorf("%s is missing", name)
		}
	}
}

// forms are those of a plural, by language.
var forms = map[string][]string{"en": {"one", "other"}, "ru": {"few", "many", "one", "other"}}

// TestWords holds that all languages have the same sentences, with the same values in them, and that the page uses each
// of them and no other.
func TestWords(t *testing.T) {
	files := page(t)
	languages := make(map[string]map[string]any)
	for name, text := range files {
		if dir, file := path.Split(name); dir == "lang/" {
			languages[strings.TrimSuffix(file, ".json")] = sentences(t, name, text)
		}
	}
	for language, all := range languages {
		if forms[language] == nil {
			t.Errorf("%s: want its plural forms in this test", language)
		}
		for key, said := range all {
			checkSentence(t, language, key, said, languages["en"][key])
		}
		for key := range languages["en"] {
			if all[key] == nil {
				t.Errorf("%s has no %q", language, key)
			}
		}
	}
	literals, asked, begins := used(scripts(t))
	for _, key := range asked {
		if languages["en"][key] == nil {
			t.Errorf("the page says %q; no language has it", key)
		}
	}
	for key := range languages["en"] {
		if !literals[key] && !slices.ContainsFunc(begins, func(begin string) bool { return strings.HasPrefix(key, begin) }) {
			t.Errorf("nothing says %q", key)
		}
	}
}

// sentences decodes a file, in which no key may stand twice.
func sentences(t *testing.T, name, text string) map[string]any {
	t.Helper()
	all := make(map[string]any)
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if lines := strings.Count(text, "\n") - 2; lines != len(all) {
		t.Errorf("%s has %d keys on %d lines; want one on each, and none twice", name, len(all), lines)
	}
	return all
}

var place = regexp.MustCompile(`\{\w+\}`)

func checkSentence(t *testing.T, language, key string, said, english any) {
	t.Helper()
	texts := map[string]string{}
	switch said := said.(type) {
	case string:
		texts["other"] = said
	case map[string]any:
		if got := slices.Sorted(maps.Keys(said)); !slices.Equal(got, forms[language]) {
			t.Errorf("%s: %q has the forms %q; want %q", language, key, got, forms[language])
		}
		for form, text := range said {
			texts[form], _ = text.(string)
		}
	}
	want, _ := english.(string)
	if all, ok := english.(map[string]any); ok {
		want, _ = all["other"].(string)
	}
	values := func(text string) []string {
		found := place.FindAllString(text, -1)
		slices.Sort(found)
		return slices.Compact(found)
	}
	for form, text := range texts {
		if got := values(text); text == "" || !slices.Equal(got, values(want)) {
			t.Errorf("%s: %q (%s) is %q, with %q; want %q", language, key, form, text, got, values(want))
		}
	}
}

var (
	remark  = regexp.MustCompile(`(?s:/\*.*?\*/)|(?m:^\s*//.*$)`)
	saying  = regexp.MustCompile(`\btx?\(([^()\n]*)`)
	literal = regexp.MustCompile(`'([a-z0-9_.]+)'`)
	made    = regexp.MustCompile("`([a-z_]+\\.)\\$\\{|'([a-z_]+\\.)' \\+")
	stored  = regexp.MustCompile(`\bkey: '(link\.[a-z_.]+)'`)
	tested  = regexp.MustCompile(`[=!]== '[^']*'`) // t(a === 'b' ? …) says no 'b'
	values  = regexp.MustCompile(`\{.*`)
)

// used returns all literals, the sentences among them that are surely asked for, and the beginnings of those whose name
// is put together.
func used(modules map[string]string) (literals map[string]bool, asked, begins []string) {
	literals = make(map[string]bool)
	for _, text := range modules {
		text = remark.ReplaceAllString(text, "")
		for _, found := range literal.FindAllStringSubmatch(text, -1) {
			literals[found[1]] = true
		}
		for _, found := range made.FindAllStringSubmatch(text, -1) {
			begins = append(begins, found[1]+found[2])
		}
		for _, found := range stored.FindAllStringSubmatch(text, -1) {
			asked = append(asked, found[1])
		}
		for _, call := range saying.FindAllStringSubmatch(text, -1) {
			for _, found := range literal.FindAllStringSubmatch(values.ReplaceAllString(tested.ReplaceAllString(call[1], ""), ""), -1) {
				if !strings.HasSuffix(found[1], ".") {
					asked = append(asked, found[1])
				}
			}
		}
	}
	return literals, asked, begins
}

// TestPageIsStrict holds that the page keeps to its policy: nothing turns text into elements or code, nothing is styled in
// markup, and nothing is fetched from elsewhere.
func TestPageIsStrict(t *testing.T) {
	files := page(t)
	forbidden := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|setHTMLUnsafe|document\.write|\beval\(|new Function|dangerouslySet|style="|//[a-z.-]+\.[a-z]+/|javascript:`)
	for name, text := range files {
		if strings.HasPrefix(name, "vendor/") || strings.HasPrefix(name, "lang/") || name == "icon.svg" {
			continue
		}
		if found := forbidden.FindString(text); found != "" {
			t.Errorf("%s has %q", name, found)
		}
	}
	imports := regexp.MustCompile(`from '([^']+)'`)
	for name, text := range scripts(t) {
		if !strings.HasPrefix(text, "// ") {
			t.Errorf("%s does not begin with a line that says what it is for", name)
		}
		for _, found := range imports.FindAllStringSubmatch(text, -1) {
			if target := path.Join(path.Dir(name), found[1]); files[target] == "" {
				t.Errorf("%s imports %s, which is not there", name, found[1])
			}
		}
	}
	for _, found := range regexp.MustCompile(`(?:href|src)="([^"]+)"`).FindAllStringSubmatch(files["index.html"], -1) {
		if files[strings.TrimPrefix(found[1], "assets/")] == "" {
			t.Errorf("index.html refers to %s, which is not there", found[1])
		}
	}
}

// TestLoginColours holds that the login page, which has a style of its own, has the colours of the page.
func TestLoginColours(t *testing.T) {
	all := page(t)["app.css"]
	colours := regexp.MustCompile(`--[a-z-]+: .*;`).FindAllString(loginHTML, -1)
	if len(colours) == 0 {
		t.Error("it has none")
	}
	for _, colour := range colours {
		if !strings.Contains(all, "\t"+colour) {
			t.Errorf("the page has no %s", colour)
		}
	}
}

// TestPageIsSmall holds how much the page is. A browser fetches no licence and no type, and one language.
func TestPageIsSmall(t *testing.T) {
	var size, packed, lines int
	for name, text := range page(t) {
		if path.Base(name) == "LICENSE" || strings.HasSuffix(name, ".d.mts") || strings.HasSuffix(name, ".d.ts") || name == "lang/en.json" {
			continue
		}
		var to bytes.Buffer
		w, err := gzip.NewWriterLevel(&to, gzip.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte(text))
		_ = w.Close()
		size, packed = size+len(text), packed+to.Len()
	}
	for _, text := range scripts(t) {
		for line := range strings.Lines(remark.ReplaceAllString(text, "")) {
			if strings.TrimSpace(line) != "" {
				lines++
			}
		}
	}
	t.Logf("%d bytes, %d packed, %d lines of code", size, packed, lines)
	for _, c := range []struct {
		what       string
		is, atMost int
	}{
		{"bytes", size, 220_000},
		{"bytes packed", packed, 80_000},
		{"lines of code", lines, 1876},
		{"lines of style", strings.Count(page(t)["app.css"], "\n"), 500},
	} {
		if c.is > c.atMost {
			t.Errorf("the page has %d %s; want at most %d", c.is, c.what, c.atMost)
		}
	}
}
