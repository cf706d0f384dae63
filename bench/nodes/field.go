package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A field is what all rounds share: where processes run, and the programs.
type field struct {
	settings
	ground   *ground
	dir      string            // removed by close
	hellos   map[kind]program  // whose sizes are measured
	programs map[string]string // paths by module and package, once built
	started  int               // agents so far
}

func newField(s settings) (*field, error) {
	g, err := newGround()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bench-nodes-")
	if err != nil {
		g.close()
		return nil, err
	}
	return &field{settings: s, ground: g, dir: dir, hellos: hellos(), programs: make(map[string]string)}, nil
}

func (f *field) close() {
	f.ground.close()
	os.RemoveAll(f.dir)
}

// A program is one that we build.
type program struct {
	module string   // folder of its module in bench's
	pkg    string   // folder in that, or a whole import path
	flags  []string // of go build
}

// file builds a program at first use and returns its path.
func (f *field) file(ctx context.Context, p program) (string, error) {
	id := filepath.Join(p.module, p.pkg) + strings.Join(p.flags, "")
	if path := f.programs[id]; path != "" {
		return path, nil
	}
	path := filepath.Join(f.dir, fmt.Sprintf("program%d", len(f.programs)))
	pkg := p.pkg
	if !strings.Contains(pkg, ".") {
		pkg = "./" + pkg
	}
	args := append(append([]string{"build", "-o", path}, p.flags...), pkg)
	if _, err := goCommand(ctx, p.module, args...); err != nil {
		return "", err
	}
	f.programs[id] = path
	return path, nil
}

// goCommand runs the go command in a module and returns what it writes.
// Programs are static, as in a container.
func goCommand(ctx context.Context, module string, args ...string) (string, error) {
	bench, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module bench: %w: run this in the folder bench", err)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(strings.TrimSpace(string(bench)), module)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s in %s: %w", strings.Join(args, " "), cmd.Dir, err)
	}
	return string(out), nil
}
