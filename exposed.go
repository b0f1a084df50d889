package greenapi

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/greenapi-community/caddy-green-api/quarantine"
)

// warnOfExposed tells of what the config lets others do that is hardly meant.
func (a *App) warnOfExposed() {
	for _, b := range a.blocks {
		h := b.handler
		if h.IPFilter.Off && h.Auth.Off && h.isPublic() {
			var listen []string
			if h.server != nil {
				listen = h.server.Listen
			}
			a.logger.Warn("anyone can send notifications, neither address nor token is asked for", zap.String("name", h.Name), zap.Strings("listen", listen))
		}
		if path, err := resolve(h.Auth.Instances); err == nil {
			a.warnOfReaders(path, h.Auth.Instances, 0o004)
		}
	}
	q := a.Quarantine
	a.warnOfReaders(q.Path, q.said, 0o077)
	a.warnOfReaders(filepath.Join(q.Path, quarantine.FileName), filepath.Join(q.said, quarantine.FileName), 0o077)
}

// isPublic tells whether another machine can reach the block's server, or whether nobody knows.
func (h *Handler) isPublic() bool {
	return h.server == nil || slices.ContainsFunc(h.server.Listen, func(listen string) bool {
		address, err := caddy.ParseNetworkAddress(listen)
		if err != nil || address.IsUnixNetwork() || address.Host == "localhost" {
			return err != nil
		}
		ip, err := netip.ParseAddr(address.Host)
		return err != nil || !foldAddr(ip).IsLoopback()
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
