package tsnode

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What a stripped program that serves HTTP on a tailnet may weigh, by what Go 1.26
// makes of examples/web. What comes to the library finds its room in it.
//
// When one is exceeded, `go tool nm -size -sort size` and `go build
// -ldflags=-dumpdep` tell what came in and what brought it. Often it is one of
// these: generic code is linked once for each type but pointers (a sort of
// package slices has 15 kB, those of package sort are linked once for all), and
// a method that an interface in use has (String, MarshalJSON, Dial) is linked
// for every type that a value in an interface leads to, called or not, those of what
// the type embeds too, once for the struct and once for pointers to it; of methods
// that generic code calls the name alone counts (x509's calls one that is query).
// What few programs use can be known to the rest by a function only, which is nil
// until they ask for it, as those of node.RegisterFallbackTCPHandler.
// errors.As links 18 kB of reflection, errors.AsType none.
const (
	maxBinary   = 13_345_000 // bytes; measured 13,336,738, of it 250,000 for package dns and 260,000 for tailnet lock
	maxModules  = 16         // measured 10
	maxPackages = 299        // those of the standard library too; measured 299
)

// TestSizeOfAProgram: what the library links stays small.
func TestSizeOfAProgram(t *testing.T) {
	program := filepath.Join(t.TempDir(), "web")
	target := append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS=", "GOEXPERIMENT=")
	goTool := func(args ...string) []byte {
		cmd := exec.Command("go", args...)
		cmd.Env = target
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %v: %v\n%s", args, err, out)
		}
		return out
	}
	goTool("build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", program, "./examples/web")
	file, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	deps := goTool("list", "-deps", "./examples/web")
	packages := bytes.Count(deps, []byte("\n"))
	for _, heavy := range []string{"google.golang.org/protobuf", "github.com/spf13/cobra", "github.com/VictoriaMetrics/metrics", "tsnode/dataplane/tun"} {
		if bytes.Contains(deps, []byte(heavy)) {
			t.Errorf("%s is linked, which only a program that asks for it needs", heavy)
		}
	}
	t.Logf("%d bytes, %d modules, %d packages", file.Size(), len(info.Deps), packages)
	if file.Size() > maxBinary {
		t.Errorf("a stripped program has %d bytes, more than %d", file.Size(), maxBinary)
	}
	if len(info.Deps) > maxModules {
		t.Errorf("%d modules are linked, more than %d", len(info.Deps), maxModules)
	}
	if packages > maxPackages {
		t.Errorf("%d packages are linked, more than %d", packages, maxPackages)
	}
}
