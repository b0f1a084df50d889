package doctor

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// anyone finds a block that lets everyone in and can be reached from another machine.
func anyone(b Block) []Finding {
	if !b.Open || !b.isPublic() {
		return nil
	}
	var listen []string
	if b.Server != nil {
		listen = b.Server.Listen
	}
	return []Finding{{
		Kind: OpenToAll, Level: Error, Where: b.where(),
		Message: "anyone can send notifications, neither address nor token keeps them out",
		Fix:     "say a token in 'auth', or which addresses in 'ip_filter', and take 'report_only' out of one of them; or 'bind 127.0.0.1' in the site",
		Fields:  []zap.Field{zap.String("name", b.Name), zap.Strings("listen", listen)},
	}}
}

// isPublic reports whether another machine can reach the block's server, or whether that is unknown.
func (b Block) isPublic() bool {
	return b.Server == nil || slices.ContainsFunc(b.Server.Listen, func(listen string) bool {
		one, err := caddy.ParseNetworkAddress(listen)
		if err != nil || one.IsUnixNetwork() || one.Host == "localhost" {
			return err != nil
		}
		ip, err := netip.ParseAddr(one.Host)
		return err != nil || !ip.Unmap().IsLoopback()
	})
}

// A File is a file or directory that contains secrets or messages.
type File struct {
	Path string
	Said string      // the path as in the config
	Deny fs.FileMode // the mode bits that must not be set
}

// usedByOthers finds a file that anyone but its owner can use.
func usedByOthers(f File) []Finding {
	if runtime.GOOS == "windows" { // it has no such bits
		return nil
	}
	info, err := os.Stat(f.Path)
	if err != nil || info.Mode()&f.Deny == 0 {
		return nil
	}
	fix := "chmod go= " + f.Said
	if info.Mode()&fs.ModeSticky != 0 { // others need it, as they do /tmp
		fix = "put it into a directory of its own, such as " + filepath.Join(f.Said, "green-api")
	}
	return []Finding{{
		Kind: FileForOthers, Level: Warn, Where: f.Said, Fix: fix,
		Message: "file can be used by others, and has secrets or messages in it",
		Fields:  []zap.Field{zap.String("file", f.Said), zap.String("mode", info.Mode().String()), zap.String("fix", fix)},
	}}
}
