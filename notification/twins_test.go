package notification

import (
	"errors"
	"testing"
)

// TestTwinsOfOwnSchemas: a name that an operator's schema knows is a twin all the same.
func TestTwinsOfOwnSchemas(t *testing.T) {
	known := `"IDINSTANCE":{},"idinstance\u0000x":true,"TypeMessage":{"type":"string"},"typewebhook":{},"MessageData":{},"INSTANCEDATA":{}`
	s := load(t, folder(t, map[string]string{
		"a.json": `{"properties":{` + known + `},"required":[],"$defs":{"x":{"required":["TYPEWEBHOOK"]}},"anyOf":[{"required":["idInstancE"]},true]}`,
		"b.json": `{"$ref":"a.json#/$defs/x"}`,
	}))
	for body, twin := range map[string]bool{
		`{"typeWebhook":"x","instanceData":{"idInstance":1,"IDINSTANCE":2}}`:                                    true,
		`{"typeWebhook":"x","instanceData":{"IDINSTANCE":2,"idInstance":1}}`:                                    true,
		`{"typeWebhook":"x","instanceData":{"idInstance":1,"\u0049DINSTANCE":2}}`:                               true,
		`{"typeWebhook":"x","instanceData":{"idInstance":1,"idInstancE":2}}`:                                    true,
		`{"typeWebhook":"x","instanceData":{"idInstance":1,"idinstance\u0000x":2}}`:                             true,
		`{"typeWebhook":"x","typewebhook":"y","instanceData":{"idInstance":1}}`:                                 true,
		`{"typeWebhook":"x","TYPEWEBHOOK":"y","instanceData":{"idInstance":1}}`:                                 true,
		`{"typeWebhook":"x","INSTANCEDATA":{},"instanceData":{"idInstance":1}}`:                                 true,
		`{"typeWebhook":"x","MessageData":{},"instanceData":{"idInstance":1}}`:                                  true,
		`{"typeWebhook":"x","instanceData":{"idInstance":1},"messageData":{"typeMessage":"","TypeMessage":""}}`: true,
		`{"typeWebhook":"x","IDINSTANCE":2,"instanceData":{"idInstance":1,"MessageData":2}}`:                    false,
		`{"typeWebhook":"x","instanceData":{"idInstance":1},"list":[{"typewebhook":1,"IDINSTANCE":1}]}`:         false,
	} {
		_, err := s.Parse([]byte(body))
		var syntax *SyntaxError
		if got := errors.As(err, &syntax) && syntax.Cause == causeTwin; got != twin || err == nil == twin {
			t.Errorf("%s: got error %v, a twin %v", body, err, twin)
		}
	}
}
