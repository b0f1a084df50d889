// Command mutate makes one fault at a time in the code and reports the faults that no test notices.
//
//	go run ./.ci/mutate [-sample 40] [-seed 1] [-run REGEXP] [-timeout 120s] PACKAGE [FILE...]
//
// PACKAGE is a folder, and FILE names files in it; the default is all its non-test files. The tree is not
// modified: each fault is an overlay of one file. A fault that does not compile does not count.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	sample := flag.Int("sample", 40, "how many faults to try, 0 for all")
	seed := flag.Uint64("seed", 1, "chooses the sample")
	run := flag.String("run", "", "tests to run, as in go test -run")
	timeout := flag.Duration("timeout", 2*time.Minute, "for the tests of one fault; reaching it counts as noticed")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "mutate: want a package folder, and perhaps files in it")
		os.Exit(2)
	}
	if err := mutate(flag.Arg(0), flag.Args()[1:], *sample, *seed, *run, *timeout); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

// A fault is one change to one file.
type fault struct {
	file string
	line int
	what string
	text []byte // the whole file with the fault
}

func mutate(dir string, names []string, sample int, seed uint64, run string, timeout time.Duration) error {
	faults, err := faultsIn(dir, names)
	if err != nil {
		return err
	}
	all := len(faults)
	r := rand.New(rand.NewPCG(seed, seed))
	r.Shuffle(all, func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	if sample > 0 && sample < all {
		faults = faults[:sample]
	}
	work, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	noticed, missed := 0, 0
	for _, f := range faults {
		switch verdict, err := try(work, dir, f, run, timeout); {
		case err != nil:
			return err
		case verdict == "noticed":
			noticed++
		case verdict == "missed":
			missed++
			fmt.Printf("%s:%d: missed: %s\n", f.file, f.line, f.what)
		}
	}
	fmt.Printf("%s: %d of %d faults noticed (%d possible)\n", dir, noticed, noticed+missed, all)
	return nil
}

// try runs the tests with a fault. It returns "noticed", "missed" or, if it does not compile, "broken".
func try(work, dir string, f fault, run string, timeout time.Duration) (string, error) {
	path, err := filepath.Abs(f.file)
	if err != nil {
		return "", err
	}
	mutant, overlay := filepath.Join(work, "mutant.go"), filepath.Join(work, "overlay.json")
	if err := os.WriteFile(mutant, f.text, 0o600); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutant}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout+5*time.Minute)
	defer cancel()
	arguments := []string{"test", "-overlay", overlay, "-count=1", "-failfast", "-vet=off", "-timeout", timeout.String()}
	if run != "" {
		arguments = append(arguments, "-run", run)
	}
	out, err := exec.CommandContext(ctx, "go", append(arguments, "./"+filepath.ToSlash(filepath.Clean(dir)))...).CombinedOutput()
	switch exit := new(exec.ExitError); {
	case err == nil && bytes.Contains(out, []byte("no tests to run")):
		return "", errors.New("no tests to run")
	case err == nil:
		return "missed", nil
	case bytes.Contains(out, []byte("[build failed]")):
		return "broken", nil
	case errors.As(err, &exit):
		return "noticed", nil
	}
	return "", err
}

// faultsIn returns the faults that can be made in the files of a folder.
func faultsIn(dir string, names []string) ([]fault, error) {
	if len(names) == 0 {
		paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			if !strings.HasSuffix(path, "_test.go") {
				names = append(names, filepath.Base(path))
			}
		}
	}
	var faults []fault
	for _, name := range names {
		of, err := faultsOf(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		faults = append(faults, of...)
	}
	return faults, nil
}

func faultsOf(path string) (faults []fault, err error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, nil, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	add := func(at ast.Node, what string) {
		var text bytes.Buffer
		if format.Node(&text, files, file) == nil {
			faults = append(faults, fault{path, files.Position(at.Pos()).Line, what, text.Bytes()})
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			for _, other := range others[n.Op] {
				was := n.Op
				n.Op = other
				add(n, was.String()+" becomes "+other.String())
				n.Op = was
			}
		case *ast.IfStmt:
			was := n.Cond
			n.Cond = &ast.UnaryExpr{Op: token.NOT, X: &ast.ParenExpr{X: was}}
			add(n, "condition turned round")
			n.Cond = was
		case *ast.BlockStmt:
			for i, statement := range n.List {
				if what := removable(statement); what != "" {
					n.List[i] = &ast.EmptyStmt{Semicolon: statement.Pos()}
					add(statement, what+" removed")
					n.List[i] = statement
				}
			}
		case *ast.Ident:
			if other := map[string]string{"true": "false", "false": "true"}[n.Name]; other != "" {
				was := n.Name
				n.Name = other
				add(n, was+" becomes "+other)
				n.Name = was
			}
		}
		return true
	})
	return faults, nil
}

var others = map[token.Token][]token.Token{
	token.EQL: {token.NEQ}, token.NEQ: {token.EQL},
	token.LSS: {token.LEQ, token.GTR}, token.LEQ: {token.LSS}, token.GTR: {token.GEQ, token.LSS}, token.GEQ: {token.GTR},
	token.LAND: {token.LOR}, token.LOR: {token.LAND},
	token.SUB: {token.ADD}, token.MUL: {token.QUO},
}

// removable names a statement that can be removed without removing a new name that is used later.
func removable(s ast.Stmt) string {
	switch s := s.(type) {
	case *ast.ExprStmt:
		return "call"
	case *ast.DeferStmt:
		return "deferred call"
	case *ast.IncDecStmt:
		return "count"
	case *ast.AssignStmt:
		if s.Tok != token.DEFINE {
			return "assignment"
		}
	case *ast.BranchStmt:
		return s.Tok.String()
	}
	return ""
}
