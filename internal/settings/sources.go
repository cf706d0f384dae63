package settings

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// Sources are where settings come from, the weakest first.
type Sources struct {
	Name    string         // of the configuration file, for errors
	File    []byte         // its text; empty: none
	Environ []string       // as os.Environ returns it
	Flags   *pflag.FlagSet // parsed; has those of AddFlags
	Groups  Group          // what the command has
}

// Read returns the settings that the sources make together. The error tells all
// that is wrong.
func (src Sources) Read() (*Settings, error) {
	into := newTarget(src.Groups)
	var errs []error
	if len(src.File) > 0 {
		errs = append(errs, readFile(src.Name, src.File, into))
		into.noteFile()
	}
	errs = append(errs, readEnvironment(src.Environ, into), readFlags(src.Flags, into), into.finish())
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return into.settings, nil
}

// noteFile remembers what the file says, before something else beats it.
func (t *target) noteFile() {
	for name, from := range t.settings.from {
		t.settings.file[name] = said{t.values[name].String(), from}
	}
}

// readFlags sets what the flags that were given say.
func readFlags(given *pflag.FlagSet, into *target) error {
	var errs []error
	given.Visit(func(g *pflag.Flag) {
		name := g.Name
		if name == aliasAuthKey {
			name = "auth-key"
		}
		to, ok := into.values[name]
		said, ours := g.Value.(*givenFlag)
		if !ok || !ours {
			return // of the command itself
		}
		into.settings.from[name] = "--" + name
		errs = append(errs, said.copyTo(to, "--"+name))
	})
	return errors.Join(errs...)
}

// Copy gives one flag the value of another of its kind.
func Copy(to, from pflag.Value) error {
	if list, ok := from.(pflag.SliceValue); ok {
		return to.(pflag.SliceValue).Replace(list.GetSlice())
	}
	return to.Set(from.String())
}

// A target is settings that sources change, one after the other.
type target struct {
	settings *Settings
	values   map[string]pflag.Value // by name, of those that the command has
	flagOnly map[string]bool

	kubernetes bool // keys go to a Secret where nothing else is said
}

func newTarget(groups Group) *target {
	t := &target{settings: Defaults(), values: make(map[string]pflag.Value), flagOnly: make(map[string]bool)}
	for _, s := range table {
		t.flagOnly[s.Name] = s.flagOnly
		if s.Group&groups != 0 {
			t.values[s.Name] = s.value(t.settings)
		}
	}
	return t
}

// inFile returns what a key of the file sets.
func (t *target) inFile(key string) (pflag.Value, bool) {
	v, ok := t.values[key]
	return v, ok && !t.flagOnly[key]
}

// suggestion is what to add to an error about an unknown key.
func (t *target) suggestion(key string) string {
	if t.flagOnly[key] {
		return ": it is a flag only"
	}
	var names []string
	for _, s := range table {
		if _, ok := t.inFile(s.Name); ok {
			names = append(names, s.Name)
		}
	}
	if near := nearest(strings.ToLower(strings.ReplaceAll(key, "_", "-")), names); near != "" {
		return fmt.Sprintf(": did you mean %q?", near)
	}
	slices.Sort(names)
	return ": known are " + strings.Join(names, ", ")
}

// set sets a setting to what a text of the environment says; from is the name of
// what says it. Settings that the command does not have are left alone.
func (t *target) set(name, text, from string) error {
	v, ok := t.values[name]
	if !ok {
		return nil
	}
	t.settings.from[name] = from
	list, ok := v.(pflag.SliceValue)
	if !ok {
		return v.Set(text)
	}
	return list.Replace(words(v, text))
}

// words are the elements of a list as the environment has them: apart by spaces,
// and by commas where no element holds some.
func words(v pflag.Value, text string) []string {
	if l, ok := v.(interface{ apartByCommas() bool }); ok && !l.apartByCommas() {
		return strings.Fields(text)
	}
	return strings.FieldsFunc(text, isComma)
}

func isComma(r rune) bool { return r == ',' || r == ' ' }

// finish makes the settings agree with one another, and returns all where they do
// not.
func (t *target) finish() error {
	var errs []error
	s := t.settings
	if t.kubernetes && s.InMemory() && s.State == "" {
		s.State = StateKube + defaultKubeSecret
	}
	if s.from["ephemeral"] == "" {
		s.Ephemeral = s.InMemory()
	}
	if !s.Ephemeral && s.InMemory() {
		s.Warnings = append(s.Warnings, "the node's keys are in memory and it is not ephemeral: each start leaves one more node in the tailnet; set state-dir, or ephemeral") // SVC-141
	}
	if s.from["auth-key"] == fromClientSecret && len(s.Tags) == 0 {
		errs = append(errs, errors.New("TS_CLIENT_SECRET: a node of an OAuth client needs tags: TS_EXTRA_ARGS=--advertise-tags=tag:NAME"))
	}
	if s.Stdio != "" && len(s.Local)+len(s.Remote)+len(s.SOCKS5)+len(s.HTTPProxy) > 0 {
		s.Warnings = append(s.Warnings, "-W forwards nothing else, as ssh's: -L, -R, -D and --http-proxy are left out")
	}
	if s.Stdio != "" && s.AuthKey == "-" {
		errs = append(errs, errors.New("-W needs standard input for its connection: take the auth key from a file, --auth-key file:PATH"))
	}
	if s.ExitNode != "" && s.AdvertiseExitNode {
		errs = append(errs, fmt.Errorf("%s and %s: a node cannot be an exit node and use one at the same time: leave out one of exit-node and advertise-exit-node", s.From("exit-node"), s.From("advertise-exit-node")))
	}
	if s.Stdio == "" {
		errs = append(errs, s.checkListeners())
	}
	return errors.Join(errs...)
}
