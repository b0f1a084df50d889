package doctor

import (
	"fmt"
	"time"
)

const (
	leastToken = 16                   // length; anything shorter can be guessed
	oldAfter   = 180 * 24 * time.Hour // for a list of addresses
)

// shortToken finds a token that can be guessed.
func shortToken(b Block) []Finding {
	if b.Shortest == 0 || b.Shortest >= leastToken {
		return nil
	}
	return []Finding{{
		Kind: ShortToken, Level: Warn, Where: b.where(),
		Message: fmt.Sprintf("a token has %d characters, and can be guessed", b.Shortest),
		Fix:     fmt.Sprintf("take one of %d or more, such as 'openssl rand -hex 32' prints, here and as webhookUrlToken in the console", leastToken),
	}}
}

// oldAddresses finds a built-in list of GREEN-API's addresses that has not been compared with theirs for
// long.
func oldAddresses(c Config, now time.Time) []Finding {
	age := now.Sub(c.Addresses)
	if c.Addresses.IsZero() || age < oldAfter {
		return nil
	}
	for _, b := range c.Blocks {
		if b.Vendor {
			return []Finding{{
				Kind: OldAddresses, Level: Warn, Where: b.where(),
				Message: fmt.Sprintf("the built-in list of GREEN-API's addresses is of %s: the queues of what comes from a new one stand still",
					c.Addresses.Format(time.DateOnly)),
				Fix: "compare 'caddy green-api addresses' with GREEN-API's page; take a newer version, or add what is new to 'allow green_api'",
			}}
		}
	}
	return nil
}
