package notification

import (
	"os"
	"path/filepath"
	"testing"
)

// TestBorrowedPlace: of some keywords the library says a place that it has overwritten since. No name of the
// body comes out of it, and no place that nothing is wrong with.
func TestBorrowedPlace(t *testing.T) {
	dir := t.TempDir()
	own := `{"properties":{
		"m":{"additionalProperties":{"additionalProperties":{"propertyNames":{"pattern":"^x"}}}},
		"list":{"items":{"type":"string"}},
		"good":{"additionalProperties":{"type":["string","object"],"properties":{"deep":{"properties":{"deeper":{"pattern":"^x"}}}}}},
		"j":{"additionalProperties":{"contentMediaType":"application/json","contentSchema":{"type":"object"}}}}}`
	if err := os.WriteFile(filepath.Join(dir, "mine.json"), []byte(own), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := LoadSchemas(dir)
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"typeWebhook":"mine","instanceData":{"idInstance":1},"m":{"Ivan":{"Petrov":{"Sidorov":1}}},` +
		`"list":[[1]],"good":{"Anna":"1","Olga":{"deep":{"deeper":"x"}}},"j":{"Oleg":"5"}}`
	allowed := map[string]bool{"/m/*/*": true, "/*/*/*": true, "/list/0": true}
	for range 500 { // the library goes over members in any order
		n, err := s.Parse([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range s.Validate(n) {
			if !allowed[f.Pointer] {
				t.Fatalf("%+v", f)
			}
		}
	}
}
