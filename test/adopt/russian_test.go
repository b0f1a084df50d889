package adopt

import (
	"regexp"
	"strings"
	"testing"
)

var comments = regexp.MustCompile(`(?m)^\s*#.*\n`)

// codeOf returns the blocks of code of a document, without the comments of Caddyfiles.
func codeOf(text string) (blocks []string) {
	for _, found := range fences.FindAllStringSubmatch(text, -1) {
		code := found[3]
		if found[2] == "caddyfile" {
			code = comments.ReplaceAllString(code, "")
		}
		blocks = append(blocks, found[2]+"\n"+code)
	}
	return blocks
}

// TestRussian: README.ru.md shows no command and no config that README.md does not show, and has all the commands of
// its first steps.
func TestRussian(t *testing.T) {
	english, russian := page(t, "README.md"), page(t, "README.ru.md")
	inEnglish, inRussian := make(map[string]bool), make(map[string]bool)
	for _, block := range codeOf(english) {
		inEnglish[block] = true
	}
	for _, block := range codeOf(russian) {
		inRussian[block] = true
		if !inEnglish[block] {
			t.Errorf("README.ru.md shows what README.md does not:\n%s", block)
		}
	}
	for _, section := range []string{"Попробовать", "В продакшене"} {
		if !strings.Contains(russian, "\n## "+section+"\n") {
			t.Errorf("README.ru.md has no section %q", section)
		}
	}
	_, firstSteps, found := strings.Cut(english, "\n## Try it\n")
	if !found {
		t.Fatal("README.md has no section «Try it»")
	}
	firstSteps, _, _ = strings.Cut(firstSteps, "\n## ")
	for _, block := range codeOf(firstSteps)[:2] {
		if !inRussian[block] {
			t.Errorf("README.ru.md lacks what README.md begins with:\n%s", block)
		}
	}
}
