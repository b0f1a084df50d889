// Command licences writes docs/licences.md, the list of the licences of all modules linked into Caddy with
// this one, and with the module nats as well, and of the console's page, or, with -check, reports whether it is up to date. An unknown licence is an error.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

const file = "docs/licences.md"

// known identifies licences by what only their texts contain; the first match counts.
var known = []struct{ name, mark string }{
	{"Apache-2.0", "Apache License Version 2.0"},
	{"MPL-2.0", "Mozilla Public License Version 2.0"},
	{"MPL-2.0", "Mozilla Public License, version 2.0"},
	{"BSD-3-Clause", "endorse or promote products derived from"},
	{"BSD-2-Clause", "Redistributions in binary form must reproduce"},
	{"MIT", "Permission is hereby granted, free of charge, to any person obtaining"},
	{"ISC", "Permission to use, copy, modify, and/or distribute this software for any purpose"},
	{"ISC", "Permission to use, copy, modify, and distribute this software for any purpose"},
	{"Unlicense", "This is free and unencumbered software released into the public domain"},
	{"CC0-1.0", "CC0 1.0 Universal"},
}

var space = regexp.MustCompile(`\s+`)

func main() {
	log.SetFlags(0)
	check := flag.Bool("check", false, "compare, do not write")
	flag.Parse()
	list, err := render()
	if err != nil {
		log.Fatal(err)
	}
	if !*check {
		if err := os.WriteFile(file, list, 0o644); err != nil { //nolint:gosec // a document
			log.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, list) {
		log.Fatalf("%s is not up to date (%v); want `make licences`", file, err)
	}
}

func render() ([]byte, error) {
	plain, err := linked(".")
	if err != nil {
		return nil, err
	}
	shared, err := linked("nats")
	if err != nil {
		return nil, err
	}
	var list bytes.Buffer
	list.WriteString("# Licences\n\nOf the modules that are linked into Caddy with this one, on Linux. Written by `make licences`.\n\n")
	if err := table(&list, plain); err != nil {
		return nil, err
	}
	list.WriteString("\n## With the queue in NATS\n\nA Caddy with the module `nats` as well has these, in the place of those above or besides.\n\n")
	if err := table(&list, slices.DeleteFunc(shared, func(line string) bool {
		return slices.Contains(plain, line) || strings.HasPrefix(line, ours+" ")
	})); err != nil {
		return nil, err
	}
	page, err := vendored("console/static/vendor")
	if err != nil {
		return nil, err
	}
	list.WriteString("\n## In the console's page\n\nThe page has these, as their authors published them on npm.\n\n")
	if err := table(&list, page); err != nil {
		return nil, err
	}
	return list.Bytes(), nil
}

const ours = "github.com/greenapi-community/caddy-green-api"

// linked returns the modules that are linked into the cmd/caddy of a folder, with their versions and folders.
func linked(folder string) ([]string, error) {
	listed := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}", "./cmd/caddy")
	listed.Dir = folder
	listed.Stderr = os.Stderr
	// The set of linked modules differs a little between systems.
	listed.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	out, err := listed.Output()
	if err != nil {
		return nil, err
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	return slices.Compact(lines), nil
}

// vendored returns what is in the folders NAME-VERSION, with its version and folder.
func vendored(folder string) (lines []string, err error) {
	entries, err := os.ReadDir(folder)
	for _, entry := range entries {
		name, version, ok := strings.Cut(entry.Name(), "-")
		if !ok {
			return nil, fmt.Errorf("%s: want NAME-VERSION", filepath.Join(folder, entry.Name()))
		}
		lines = append(lines, fmt.Sprintf("%s v%s %s", name, version, filepath.Join(folder, entry.Name())))
	}
	return lines, err
}

// table writes the licences of modules.
func table(list *bytes.Buffer, modules []string) error {
	list.WriteString("| module | version | licence |\n|---|---|---|\n")
	for _, line := range modules {
		path, rest, _ := strings.Cut(line, " ")
		version, dir, _ := strings.Cut(rest, " ")
		licence, err := licenceIn(dir)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		fmt.Fprintf(list, "| `%s` | %s | %s |\n", path, version, licence)
	}
	return nil
}

// licenceIn returns the names of a module's licences; there is more than one if it has several files.
func licenceIn(dir string) (string, error) {
	var names []string
	for _, pattern := range []string{"LICEN[CS]E*", "licen[cs]e*", "Licen[cs]e*", "COPYING*", "UNLICENSE*"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", err
		}
		for _, file := range files {
			text, err := os.ReadFile(file) //nolint:gosec // in the module cache
			if err != nil {
				continue // a folder
			}
			flat := space.ReplaceAllString(string(text), " ")
			for _, licence := range known {
				if strings.Contains(flat, licence.mark) {
					if !slices.Contains(names, licence.name) {
						names = append(names, licence.name)
					}
					break
				}
			}
		}
	}
	if len(names) == 0 {
		return "", fmt.Errorf("no known licence in %s", dir)
	}
	return strings.Join(names, ", "), nil
}
