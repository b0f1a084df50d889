package command_test

import (
	"strings"
	"testing"

	"github.com/greenapi-community/caddy-green-api/internal/address"
)

func TestAddressesCommand(t *testing.T) {
	for format, want := range map[string]string{
		"text": "\n51.250.84.44\n", "json": `"date":"2026-07-15"`, "nft": "\t\t51.250.84.44,\n", "ufw": "ufw allow proto tcp from 51.250.84.44 to any port 443 ", "nginx": "allow 51.250.84.44;\n",
	} {
		stdout, stderr, code := runCommand(t, "", "", "green-api", "addresses", "--format", format)
		if code != 0 || stderr != "" || !strings.Contains(stdout, want) || !strings.Contains(stdout, address.VendorDate) {
			t.Errorf("%s: exit code %d, %q, %q", format, code, stdout, stderr)
		}
	}
	if _, stderr, code := runCommand(t, "", "", "green-api", "addresses", "--format", "iptables"); code != 2 || !strings.Contains(stderr, "want text, json, nft, ufw or nginx") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
