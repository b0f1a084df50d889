package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/greenapi-community/caddy-green-api/bench/load"
)

//go:embed configs
var configs embed.FS

// setting is what a config is made from.
type setting struct {
	Listen, Admin, Dir, Upstream string

	Prefixes    []string
	Tokens      []string
	PerInstance bool // each token belongs to one instance
	Drop        bool
	Logged      bool
	NJS         string // nginx's module file; "" for none
}

// edge is one of the compared programs.
type edge struct {
	name    string
	config  string
	command []string // CONFIG is the file, DIR its directory; nil means to send straight to the upstream
	njs     string
	missing string // what to install if it is missing

	setting
	process *exec.Cmd
	output  bytes.Buffer
}

// nginxModules are the places where Debian and others put nginx's modules.
var nginxModules = []string{"/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/etc/nginx/modules", "/usr/local/lib/nginx/modules"}

// findEdges builds or finds the programs.
func findEdges(dir, modules, other string, xcaddy bool) ([]*edge, error) {
	const module = "github.com/greenapi-community/caddy-green-api"
	build := func(path string) (string, error) {
		out := filepath.Join(dir, filepath.Base(path))
		if text, err := exec.Command("go", "build", "-o", out, module+path).CombinedOutput(); err != nil {
			return "", fmt.Errorf("building %s: %w\n%s", path, err, text)
		}
		return out, nil
	}
	path := "/cmd/caddy"
	if xcaddy {
		path = "/bench/edge/xcaddy"
	}
	binary, err := build(path)
	if err != nil {
		return nil, err
	}
	caddy := func(binary string) []string {
		return []string{binary, "run", "--adapter", "caddyfile", "--config", "CONFIG"}
	}
	nginx := []string{"nginx", "-c", "CONFIG", "-p", "DIR"}
	edges := []*edge{
		{name: "green_api", config: "green_api.Caddyfile", command: caddy(binary)},
		{name: "other", config: "green_api.Caddyfile", command: caddy(other)},
		{name: "caddy", config: "caddy.Caddyfile", command: caddy(binary)},
		{name: "respond", config: "respond.Caddyfile", command: caddy(binary)},
		{name: "nginx", config: "nginx.conf", command: nginx},
		{name: "njs", config: "nginx.conf", command: nginx},
		{name: "haproxy", config: "haproxy.cfg", command: []string{"haproxy", "-f", "CONFIG"}},
		{name: "none"},
	}
	if other == "" {
		edges = slices.DeleteFunc(edges, func(e *edge) bool { return e.name == "other" })
	}
	for _, e := range edges {
		if e.command == nil {
			continue
		}
		if _, err := exec.LookPath(e.command[0]); err != nil {
			e.missing = map[string]string{"nginx": "nginx-light", "haproxy": "haproxy"}[e.command[0]]
		}
		if e.name != "njs" {
			continue
		}
		if e.njs = findNJS(modules); e.njs == "" {
			e.missing = "libnginx-mod-http-js"
		}
	}
	return edges, nil
}

// findNJS returns the file of nginx's JavaScript module, "" if there is none.
func findNJS(modules string) string {
	for _, dir := range append([]string{modules}, nginxModules...) {
		file := filepath.Join(dir, "ngx_http_js_module.so")
		if _, err := os.Stat(file); err == nil {
			return file
		}
	}
	return ""
}

// printVersions prints the versions of what is compared.
func printVersions(edges []*edge) {
	if out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/caddyserver/caddy/v2").Output(); err == nil {
		fmt.Printf("Caddy %s; ", bytes.TrimSpace(out))
	}
	if out, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		fmt.Printf("green_api %s; ", bytes.TrimSpace(out))
	}
	if out, err := exec.Command("nginx", "-v").CombinedOutput(); err == nil {
		fmt.Printf("%s; ", bytes.TrimPrefix(bytes.TrimSpace(out), []byte("nginx version: ")))
	}
	if out, err := exec.Command("haproxy", "-v").Output(); err == nil {
		line, _, _ := strings.Cut(string(out), " 20")
		fmt.Printf("%s; ", line)
	}
	if out, err := exec.Command("dpkg-query", "-W", "-f", "njs ${Version}; ", "libnginx-mod-http-js").Output(); err == nil {
		fmt.Printf("%s", out)
	}
	fmt.Println()
	for _, e := range edges {
		if e.missing != "" {
			fmt.Printf("%s is left out: it is not installed (Debian: %s)\n", e.name, e.missing)
		}
	}
}

func (e *edge) start(dir, upstream string, s setting) (err error) {
	if e.command == nil {
		e.Listen = upstream
		return nil
	}
	if e.Dir, err = os.MkdirTemp(dir, e.name+"-"); err != nil {
		return err
	}
	s.Dir, s.Upstream, s.NJS = e.Dir, upstream, e.njs
	if s.Listen, err = freeAddress(); err != nil {
		return err
	}
	if s.Admin, err = freeAddress(); err != nil {
		return err
	}
	e.setting = s
	if err := e.writeFiles(); err != nil {
		return err
	}
	args := make([]string, len(e.command))
	for i, arg := range e.command {
		args[i] = strings.NewReplacer("CONFIG", e.file(e.config), "DIR", e.Dir).Replace(arg)
	}
	e.process = exec.Command(args[0], args[1:]...)
	e.process.Env = append(os.Environ(), "XDG_DATA_HOME="+e.Dir, "XDG_CONFIG_HOME="+e.Dir)
	e.output.Reset()
	e.process.Stdout, e.process.Stderr = &e.output, &e.output
	if s.Logged && e.name == "haproxy" { // it does not write log files
		file, err := os.Create(e.file("access.log"))
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // the process has its own handle
		e.process.Stdout, e.process.Stderr = file, file
	}
	if err := e.process.Start(); err != nil {
		return err
	}
	for range 400 {
		if conn, err := net.Dial("tcp", e.Listen); err == nil {
			return conn.Close()
		}
		time.Sleep(25 * time.Millisecond)
	}
	e.stop()
	return errors.New("does not listen:\n" + e.output.String())
}

func (e *edge) file(name string) string { return filepath.Join(e.Dir, name) }

func (e *edge) writeFiles() error {
	config, err := template.New(e.config).Funcs(template.FuncMap{"instance": instance}).ParseFS(configs, "configs/"+e.config)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := config.Execute(&text, e.setting); err != nil {
		return err
	}
	check, err := configs.ReadFile("configs/check.js")
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{
		e.config:         text.Bytes(),
		"check.js":       check,
		"prefixes":       []byte(strings.Join(e.Prefixes, "\n") + "\n"),
		"authorizations": []byte("Bearer " + strings.Join(e.Tokens, "\nBearer ") + "\n"),
	} {
		if err := os.WriteFile(e.file(name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (e *edge) stop() {
	if e.process == nil {
		return
	}
	_ = e.process.Process.Signal(os.Interrupt)
	_ = e.process.Wait() // it was told to stop
	os.RemoveAll(e.Dir)
}

// usage returns what the edge has used, zero for the upstream alone.
func (e *edge) usage() (load.Usage, error) {
	if e.process == nil {
		return load.Usage{}, nil
	}
	return load.UsageOf(e.process.Process.Pid)
}

// profile writes a CPU profile of the next seconds to a file.
func (e *edge) profile(file string, seconds int) error {
	response, err := http.Get("http://" + e.Admin + "/debug/pprof/profile?seconds=" + strconv.Itoa(seconds))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, response.Body); err != nil {
		return err
	}
	return out.Close()
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
