package interop

import (
	"debug/buildinfo"
	"debug/elf"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/internal/settings"
)

// everySetting is what tsnode run has.
const everySetting = settings.Node | settings.Route | settings.Serve

// checkEnviron checks that tsnode run knows each variable for what it is, and takes
// its value without a warning; it returns what it makes of them.
func checkEnviron(t *testing.T, environ []string) *settings.Settings {
	t.Helper()
	var known []string
	for _, v := range settings.Variables() {
		known = append(known, v.Name)
	}
	for _, line := range environ {
		name, _, _ := strings.Cut(line, "=")
		if name != "PATH" && !slices.Contains(known, name) {
			t.Errorf("%s: there is no such variable", name)
		}
	}
	f := pflag.NewFlagSet("run", pflag.ContinueOnError)
	settings.AddFlags(f, everySetting)
	s, err := settings.Sources{Environ: environ, Flags: f, Groups: everySetting}.Read()
	if err != nil {
		t.Fatalf("%q: %v", environ, err)
	}
	for _, w := range s.Warnings {
		t.Errorf("%q: warning: %s", environ, w)
	}
	return s
}

// The image holds what it says: nothing below it, a user by number, folders of that
// user's, variables that tsnode run knows. What its lines refer to is there.
func TestDockerfile(t *testing.T) {
	img, err := readImage()
	if err != nil {
		t.Fatal(err)
	}
	if img.base != "scratch" || img.user != 65532 {
		t.Errorf("the image is based on %q for user %d", img.base, img.user)
	}
	program := "/usr/local/bin/tsnode"
	if !slices.Equal(img.entrypoint, []string{program, "run"}) || !slices.Equal(img.health, []string{program, "healthcheck"}) {
		t.Errorf("entry point %q, health check %q", img.entrypoint, img.health)
	}
	if !slices.Contains(img.environ, "PATH="+filepath.Dir(program)) {
		t.Errorf("the program is not found by its name: %q", img.environ)
	}
	for _, c := range img.copies {
		if c.owner != 0 && c.owner != img.user {
			t.Errorf("%s belongs to %d", c.from, c.owner)
		}
	}
	s := checkEnviron(t, img.environ)
	if s.Socket == "" || !strings.HasPrefix(s.Health, "127.0.0.1:") || !s.InMemory() {
		t.Errorf("socket %q, health %q, in memory: %v", s.Socket, s.Health, s.InMemory())
	}
	checkContext(t, img.steps)
}

// checkContext checks that what is copied from the project is there, and that the
// toolchain is new enough for it.
func checkContext(t *testing.T, steps []instruction) {
	t.Helper()
	for _, in := range steps {
		switch in.name {
		case "FROM":
			if want := "golang:" + goVersion(t) + "-"; !strings.HasPrefix(in.args, want) {
				t.Errorf("FROM %s: go.mod wants %s", in.args, want)
			}
		case "COPY":
			files := strings.Fields(in.args)
			for _, f := range files[:len(files)-1] {
				if _, err := os.Stat(filepath.Join(projectFolder, f)); err != nil {
					t.Errorf("COPY %s: %v", in.args, err)
				}
			}
		}
	}
}

// goVersion returns the language version that the product wants.
func goVersion(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(projectFolder, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(b)
	if m == nil {
		t.Fatal("go.mod says no version")
	}
	return string(m[1])
}

// The program of the image needs no other file to start, says nothing of where it was
// built, and has no symbols.
func TestProgramOfImage(t *testing.T) {
	parts, err := imageParts()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(parts, "root/usr/local/bin/tsnode")
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	built := make(map[string]string)
	for _, s := range info.Settings {
		built[s.Key] = s.Value
	}
	if built["CGO_ENABLED"] != "0" || built["-trimpath"] != "true" {
		t.Errorf("built with %v", built)
	}
	f, err := elf.Open(program)
	if err != nil { // built for a system whose programs are no ELF files: the image is for Linux
		t.Skip("not a program of this system's kind: ", err)
	}
	defer f.Close()
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 || f.Section(".interp") != nil {
		t.Errorf("it is linked dynamically: %q, %v", libraries, err)
	}
	if f.Section(".symtab") != nil {
		t.Error("it has symbols")
	}
}
