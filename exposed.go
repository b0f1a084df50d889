package greenapi

import (
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/internal/address"
	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// warnOfExposed tells of what the config lets others do that is hardly meant.
func (a *App) warnOfExposed() {
	for _, b := range a.blocks {
		h := b.handler
		if h.IPFilter.isOpen() && h.Auth.isOpen() && h.isPublic() {
			var listen []string
			if h.server != nil {
				listen = h.server.Listen
			}
			a.logger.Warn("anyone can send notifications, neither address nor token keeps them out", zap.String("name", h.Name), zap.Strings("listen", listen))
		}
		if path, err := resolve(h.Auth.Instances); err == nil {
			a.warnOfReaders(path, h.Auth.Instances, 0o004)
		}
	}
	q := a.Quarantine
	a.warnOfReaders(q.Path, q.said, 0o077)
	a.warnOfReaders(filepath.Join(q.Path, quarantine.FileName), filepath.Join(q.said, quarantine.FileName), 0o077)
}

// isOpen reports whether nearly any address gets through the gate.
func (f *IPFilter) isOpen() bool {
	if f.Off || f.ReportOnly {
		return true
	}
	list := slices.Clone([]netip.Prefix(f.allowed))
	for _, source := range f.sources {
		switch source.(type) {
		case *caddyhttp.StaticIPRange, *AddressFile, VendorAddresses: // which need no request to say so
			list = append(list, source.GetIPRanges(nil)...)
		}
	}
	return mostOfInternet(list)
}

// isOpen reports whether the gate lets everyone through, whatever the token.
func (a *Auth) isOpen() bool { return a.Off || a.ReportOnly }

// globalUnicast is where the IPv6 addresses of the Internet are (RFC 4291, 2.4; all that IANA has
// given out).
var globalUnicast = netip.MustParsePrefix("2000::/3")

// mostOfInternet reports whether a list has half of the addresses of IPv4 or of IPv6, in however
// many pieces. Nobody is kept out by such a list who can choose where to send from.
func mostOfInternet(list []netip.Prefix) bool {
	folded := make([]netip.Prefix, len(list))
	for i, prefix := range list {
		folded[i] = address.FoldPrefix(prefix)
	}
	var v4, v6 float64 // the shares of all
	for _, prefix := range address.NewSet(folded) {
		switch {
		case prefix.Addr().Is4():
			v4 += math.Ldexp(1, -prefix.Bits())
		case prefix.Overlaps(globalUnicast):
			v6 += math.Ldexp(1, min(0, globalUnicast.Bits()-prefix.Bits()))
		}
	}
	return v4 >= 0.5 || v6 >= 0.5
}

// isPublic tells whether another machine can reach the block's server, or whether nobody knows.
func (h *Handler) isPublic() bool {
	return h.server == nil || slices.ContainsFunc(h.server.Listen, func(listen string) bool {
		one, err := caddy.ParseNetworkAddress(listen)
		if err != nil || one.IsUnixNetwork() || one.Host == "localhost" {
			return err != nil
		}
		ip, err := netip.ParseAddr(one.Host)
		return err != nil || !address.Fold(ip).IsLoopback()
	})
}

// warnOfReaders tells of a file that more than its owner can use, by those bits of its mode. said is
// the path as the config says it.
func (a *App) warnOfReaders(path, said string, others fs.FileMode) {
	if runtime.GOOS == "windows" { // which has no such bits
		return
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&others != 0 {
		a.logger.Warn("file can be used by others, and has secrets or messages in it",
			zap.String("file", said), zap.String("mode", info.Mode().String()), zap.String("fix", "chmod go= "+said))
	}
}
