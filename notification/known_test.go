package notification

import (
	"strings"
	"testing"
)

// TestHiddenNames: of a body's own names none is in a fault, of a schema's each.
func TestHiddenNames(t *testing.T) {
	t.Parallel()
	for schema, want := range map[string]string{ // the faults' pointers
		`{"properties":{"m":{"additionalProperties":{"type":"string"}}}}`:                                            "/m/* /m/known",
		`{"properties":{"m":{"patternProperties":{"^CANARY":{"type":"string"},"^k":{"type":"string"}}}}}`:            "/m/* /m/known",
		`{"properties":{"m":{"unevaluatedProperties":{"type":"string"}}}}`:                                           "/m/* /m/known",
		`{"properties":{"m":{"additionalProperties":{"properties":{"deep":{"type":"null"}}}}}}`:                      "/m/*/deep",
		`{"properties":{"m":{"additionalProperties":{"required":["lacking"]}}}}`:                                     "/m/*/lacking",
		`{"properties":{"m":{"additionalProperties":{"items":{"items":{"type":"null"}}}}}}`:                          "/m/*/1/0",
		`{"properties":{"m":{"propertyNames":{"maxLength":1}}}}`:                                                     "/m",
		`{"properties":{"m":{"additionalProperties":false}}}`:                                                        "/m",
		`{"additionalProperties":{"additionalProperties":{"type":"string"}}}`:                                        "/*/* /*/known",
		`{"required":["a/b~c"],"dependentRequired":{"m":["other"]},"$defs":{"x":{"properties":{"79000000001":{}}}}}`: "/a~1b~0c ", // and at the root
	} {
		s := load(t, folder(t, map[string]string{
			"canary.json": schema,
			"names.json":  `{"properties":{"known":true,"instanceData":true,"typeWebhook":true}}`,
		}))
		body := `{"typeWebhook":"canary","instanceData":{"idInstance":"1"},"m":{"CANARY +79000000000":5,"CANARY/~1":{"deep":1},"CANARY":[[],[1]],"known":7,"12345":[]}}`
		var pointers []string
		for _, f := range validate(t, s, body) {
			if len(pointers) == 0 || pointers[len(pointers)-1] != f.Pointer {
				pointers = append(pointers, f.Pointer)
			}
		}
		got := strings.Join(pointers, " ")
		if strings.HasSuffix(want, " ") {
			got = strings.TrimPrefix(got, " ") + " "
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", schema, got, want)
		}
	}
}

// TestIsIndex: longer digits than an array can have elements may be a phone number.
func TestIsIndex(t *testing.T) {
	for token, want := range map[string]bool{"0": true, "12345": true, "123456": false, "": false, "1a": false, "-1": false} {
		if got := isIndex(token); got != want {
			t.Errorf("%q: %t", token, got)
		}
	}
}
