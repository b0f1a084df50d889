package doctor

import (
	"io/fs"
	"net/netip"
	"os"
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
		"anyone can send notifications, neither address nor token keeps them out",
		[]zap.Field{zap.String("name", b.Name), zap.Strings("listen", listen)},
	}}
}

// isPublic reports whether another machine can reach the block's server, or whether that is not known.
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

// A File is a file or directory with secrets or messages in it.
type File struct {
	Path string
	Said string      // the path as the config says it
	Deny fs.FileMode // the bits of its mode that must not be set
}

// usedByOthers finds a file that more than its owner can use.
func usedByOthers(f File) []Finding {
	if runtime.GOOS == "windows" { // which has no such bits
		return nil
	}
	info, err := os.Stat(f.Path)
	if err != nil || info.Mode()&f.Deny == 0 {
		return nil
	}
	return []Finding{{
		"file can be used by others, and has secrets or messages in it",
		[]zap.Field{zap.String("file", f.Said), zap.String("mode", info.Mode().String()), zap.String("fix", "chmod go= "+f.Said)},
	}}
}
