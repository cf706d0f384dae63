package tsnode

import (
	"bytes"
	"debug/buildinfo"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What a stripped program that serves HTTP on a tailnet may weigh: what Go 1.26
// makes of examples/web and a margin, half a percent of the size and a few packages.
//
// When one is exceeded, `go tool nm -size -sort size` and `go build
// -ldflags=-dumpdep` tell what came in and what brought it. Often it is one of
// these: generic code is linked once for each type but pointers (a sort of
// package slices has 15 kB, those of package sort are linked once for all), and
// a method that an interface in use has (String, MarshalJSON, Dial) is linked
// for every type that a value in an interface leads to, called or not; of methods
// that generic code calls the name alone counts (x509's calls one that is query).
// errors.As links 18 kB of reflection, errors.AsType none.
const (
	maxBinary   = 13_455_000 // bytes; measured 13,406,370, of it 250,000 for package dns, 260,000 for tailnet lock, 95,000 for pending connections, fallbacks and copies, 12,000 for sockets beside a TUN device
	maxModules  = 16         // measured 10
	maxPackages = 306        // those of the standard library too; measured 302
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
