package settings

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite golden files and the tables of doc/configuration.md")

const document = "../../doc/configuration.md"

// containerVariables are the names in the table of the container's environment.
func containerVariables(t *testing.T) (names []string) {
	t.Helper()
	b, err := os.ReadFile("../../doc/protocol/node-services.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "\n## 17. ")
	section, _, _ = strings.Cut(section, "\n## 18. ")
	name := regexp.MustCompile(`[A-Z][A-Z0-9_]+_[A-Z0-9_*]+`)
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			names = append(names, name.FindAllString(cells[1], -1)...)
		}
	}
	if len(names) < 30 {
		t.Fatalf("only %d variables found: %q", len(names), names)
	}
	return names
}

// The document lists exactly the settings and variables that the program has;
// -update rewrites its tables.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	want := between(t, string(b), "settings", settingsTable())
	want = between(t, want, "variables", variablesTable())
	if want == string(b) {
		return
	}
	if !*update {
		t.Fatalf("%s differs from what the program has: go test ./internal/settings -update", document)
	}
	if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// between puts table between the marks of its name.
func between(t *testing.T, text, name, table string) string {
	t.Helper()
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->\n"
	i, j := strings.Index(text, begin), strings.Index(text, end)
	if i < 0 || j < i {
		t.Fatalf("%s has no marks %q and %q", document, begin, end)
	}
	return text[:i+len(begin)] + table + text[j:]
}

func settingsTable() string {
	var b strings.Builder
	b.WriteString("\n| flag, key | variable | value | default | live | what |\n|---|---|---|---|---|---|\n")
	for _, s := range Table() {
		v := s.value(Defaults())
		flag, live, key := "`--"+s.Name+"`", "", v.Type()
		if s.Short != "" {
			flag = "`-" + s.Short + "`, " + flag
		}
		if s.Live {
			live = "yes"
		}
		fallback := v.String()
		if fallback != "" {
			fallback = "`" + fallback + "`"
		}
		variable := "`" + s.Env + "`"
		if s.flagOnly {
			variable, key = "–", key+", flag only"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", flag, variable, key, fallback, live, s.Usage)
	}
	return b.String() + "\n"
}

func variablesTable() string {
	var b strings.Builder
	b.WriteString("\n| variable | what it does |\n|---|---|\n")
	for _, v := range special {
		fmt.Fprintf(&b, "| `%s` | %s |\n", v.Name, v.Does)
	}
	return b.String() + "\n"
}
