package rounds

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Taken says when and of what a row was measured.
type Taken struct {
	Time       time.Time
	Commit     string // of the tree; "+" behind it: with changes
	Go         string // version of the compiler
	Machine    string // operating system, architecture, model of the processor
	Processors int
	Arguments  []string // of the command
}

// taken describes this run.
func (s Settings) taken() Taken {
	return Taken{
		Time: time.Now().UTC().Truncate(time.Second), Commit: commit(), Go: runtime.Version(),
		Machine:    runtime.GOOS + "/" + runtime.GOARCH + " " + processor(),
		Processors: runtime.NumCPU(), Arguments: os.Args[1:],
	}
}

// commit asks git for the commit that is checked out; "" without git.
func commit() string {
	id, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return ""
	}
	name := strings.TrimSpace(string(id))
	if changes, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output(); err != nil || len(changes) > 0 {
		name += "+"
	}
	return name
}

// processor returns the model of the processor as Linux has it; "" elsewhere.
func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo") // not there: no model
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// A Book is a file of results, the newest of each row, in JSON.
type Book struct {
	file    string // empty: nowhere
	Results []Result
}

// OpenBook reads the results in a file, if there is one already. Without a name
// the book is kept in memory.
func OpenBook(file string) (*Book, error) {
	b := &Book{file: file}
	if file == "" {
		return b, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &b.Results); err != nil {
		return nil, fmt.Errorf("%s: %w: it holds no results; choose another file", file, err)
	}
	return b, nil
}

// Record puts a result in the place of an earlier one of its row, or at the end,
// and writes the file: a run that is broken off has lost nothing.
func (b *Book) Record(res Result) error {
	i := slices.IndexFunc(b.Results, func(r Result) bool { return r.Row == res.Row })
	if i < 0 {
		b.Results = append(b.Results, res)
	} else {
		b.Results[i] = res
	}
	if b.file == "" {
		return nil
	}
	text, err := json.MarshalIndent(b.Results, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(b.file, append(text, '\n'), 0o644)
}

// Print writes the tables of all results, with when and of what they are where
// that differs from the one before.
func (b *Book) Print(w io.Writer) {
	var last string
	for _, r := range b.Results {
		t := r.Taken
		about := fmt.Sprintf("commit %s, %s, %d × %s", t.Commit, t.Go, t.Processors, t.Machine)
		if about != last {
			fmt.Fprintf(w, "\n%s, from %s on\n", about, t.Time.Format(time.RFC3339))
		}
		last = about
		r.Print(w)
	}
}
