package doctor

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// A Socket is a socket on which a process of this machine listens.
type Socket struct {
	Address netip.AddrPort
	PID     int    // 0 if unknown
	Program string // its name
	Edge    bool   // it is this program, or runs this config
}

// ports finds an address of the config that another process listens on. Caddy's listeners allow that
// (SO_REUSEPORT): each process then gets some of the connections, without any notice.
func ports(written Written, m Machine) (found []Finding) {
	seen := make(map[string]bool)
	for _, server := range written.Servers {
		for _, listen := range server.Listen {
			address, err := caddy.ParseNetworkAddress(listen)
			if err != nil || seen[listen] || address.IsUnixNetwork() || address.IsFdNetwork() {
				continue
			}
			seen[listen] = true
			for port := address.StartPort; port <= address.EndPort && port < address.StartPort+100; port++ {
				found = append(found, portOf(address.Host, port, m.Sockets)...)
			}
		}
	}
	return found
}

// portOf finds the other listeners on one address.
func portOf(host string, port uint, sockets []Socket) []Finding {
	var edges, others, unknown []Socket
	for _, s := range sockets {
		if uint(s.Address.Port()) != port || !overlap(host, s.Address.Addr()) {
			continue
		}
		list := &others
		switch {
		case s.PID == 0:
			list = &unknown
		case s.Edge:
			list = &edges
		}
		if s.PID == 0 || !slices.ContainsFunc(*list, func(one Socket) bool { return one.PID == s.PID }) {
			*list = append(*list, s)
		}
	}
	where := net.JoinHostPort(host, strconv.Itoa(int(port)))
	shared := Finding{Kind: PortShared, Level: Error, Where: where, Fix: "stop the one that is not meant to run, or give it another port or a 'bind' of its own"}
	const parts = ": each gets a part of the connections"
	switch {
	case len(edges) > 1:
		shared.Message = "two edges listen" + nameAll(edges) + parts
	case len(edges) == 1 && len(others) > 0:
		shared.Message = "another program listens besides the edge" + nameAll(others) + parts
	case len(others) > 0:
		return []Finding{{
			Kind: PortTaken, Level: Error, Where: where, Message: "another program listens" + nameAll(others) + ", and the edge may not start or get only a part of the connections",
			Fix: "stop it, or give the site another port",
		}}
	case sameAddress(unknown):
		shared.Level, shared.Message = Warn, "two sockets listen, of processes that this user may not see"+parts
		shared.Fix = "run doctor as root, which says whose they are, and " + shared.Fix
	default:
		return nil
	}
	return []Finding{shared}
}

// sameAddress reports whether two sockets have the same address.
func sameAddress(sockets []Socket) bool {
	seen := make(map[netip.AddrPort]bool)
	for _, s := range sockets {
		if seen[s.Address] {
			return true
		}
		seen[s.Address] = true
	}
	return false
}

func nameAll(sockets []Socket) string {
	var names []string
	for _, s := range sockets {
		names = append(names, fmt.Sprintf("%s, process %d", s.Program, s.PID))
	}
	return " (" + strings.Join(names, "; ") + ")"
}

// overlap reports whether a socket gets connections that are meant for a host, which may be a name.
func overlap(host string, addr netip.Addr) bool {
	if host == "" || addr.Unmap().IsUnspecified() {
		return true
	}
	if host == "localhost" {
		return addr.Unmap().IsLoopback()
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.IsUnspecified() || ip.Unmap() == addr.Unmap())
}

// listening is the state of a listening TCP socket in /proc/net.
const listening = "0A"

// sockets returns the listening sockets. It sees the processes that its user may see.
func sockets(root, file string) (found []Socket) {
	owners := make(map[string]Socket) // by inode
	self, _ := os.Readlink(filepath.Join(root, "proc/self/exe"))
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(filepath.Join(root, "proc/self/net", table)) //nolint:gosec // root is / or a test's
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) < 10 || fields[3] != listening {
				continue
			}
			address, ok := parseSocket(fields[1])
			if !ok {
				continue
			}
			if len(owners) == 0 {
				owners = ownersOf(root, self, file)
			}
			s := owners[fields[9]]
			s.Address = address
			found = append(found, s)
		}
	}
	return found
}

// parseSocket parses an address as in /proc/net: the bytes of each 32-bit word reversed, and the port.
func parseSocket(text string) (address netip.AddrPort, ok bool) {
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	number, portErr := strconv.ParseUint(port, 16, 16)
	if err != nil || portErr != nil || len(raw)%4 != 0 {
		return address, false
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	ip, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(ip, uint16(number)), ok
}

// ownersOf returns the processes that have sockets, by the inode of each socket.
func ownersOf(root, self, file string) map[string]Socket {
	owners := make(map[string]Socket)
	links, _ := filepath.Glob(filepath.Join(root, "proc/[0-9]*/fd/*")) // the pattern is good
	processes := make(map[string]Socket)
	for _, link := range links {
		target, err := os.Readlink(link)
		inode, isSocket := strings.CutPrefix(target, "socket:[")
		if err != nil || !isSocket {
			continue
		}
		dir := filepath.Dir(filepath.Dir(link))
		process, known := processes[dir]
		if !known {
			process = processOf(dir, self, file)
			processes[dir] = process
		}
		if owner := owners[strings.TrimSuffix(inode, "]")]; owner.PID == 0 || process.Edge && !owner.Edge { // systemd may hold it, too
			owners[strings.TrimSuffix(inode, "]")] = process
		}
	}
	return owners
}

func processOf(dir, self, file string) Socket {
	pid, _ := strconv.Atoi(filepath.Base(dir))            // by the pattern
	name, _ := os.ReadFile(filepath.Join(dir, "comm"))    //nolint:gosec // of a process in /proc
	line, _ := os.ReadFile(filepath.Join(dir, "cmdline")) //nolint:gosec // the same
	exe, _ := os.Readlink(filepath.Join(dir, "exe"))
	cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))
	return Socket{
		PID: pid, Program: strings.TrimSpace(string(name)),
		Edge: exe != "" && strings.TrimSuffix(exe, " (deleted)") == self || runsWith(strings.Split(string(line), "\x00"), cwd, file),
	}
}
