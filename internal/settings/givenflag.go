package settings

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// A givenFlag is the value of a flag of the command line. It takes every text, so that
// what is wrong with one flag is told together with what is wrong elsewhere.
type givenFlag struct {
	pflag.Value // what is understood of the texts, for people
	texts       []string
}

// Set implements pflag.Value.
func (g *givenFlag) Set(text string) error {
	g.texts = append(g.texts, text)
	g.Value.Set(text) // copyTo tells what is wrong
	return nil
}

// copyTo sets a setting to what the flag was given; flag is its name.
func (g *givenFlag) copyTo(to pflag.Value, flag string) error {
	if list, ok := to.(pflag.SliceValue); ok {
		list.Replace(nil) // in place of what other sources say
	}
	var errs []error
	for _, text := range g.texts {
		if err := to.Set(text); err != nil {
			errs = append(errs, flagError(flag, text, err))
		}
	}
	return errors.Join(errs...)
}

// flagError names the flag and what it was given, if err does not yet.
func flagError(flag, text string, err error) error {
	if strings.Contains(err.Error(), strconv.Quote(text)) {
		return fmt.Errorf("%s: %w", flag, err)
	}
	return fmt.Errorf("%s %q: %w", flag, text, err)
}
