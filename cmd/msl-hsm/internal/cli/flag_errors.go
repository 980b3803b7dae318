package cli

import (
	"errors"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// wrongFlag suggests the flag meant by one that does not exist, or says what the value of
// an existing one looks like. The flags of a mistyped verb are those of the one that is meant.
func wrongFlag(c *cobra.Command, err error) error {
	if args := c.Flags().Args(); c.HasSubCommands() && len(args) > 0 {
		return unknownCommand(c, args[0])
	}
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		if near := exit.Nearest(unknown.GetSpecifiedName(), flagNames(c)); near != "" {
			return exit.Usagef("%w; did you mean --%s? see %s --help", err, near, c.CommandPath())
		}
	case errors.As(err, &invalid):
		if wanted := valueOf(invalid.GetFlag()); wanted != "" {
			return exit.Usagef("--%s %q: want %s; see %s --help", invalid.GetFlag().Name, invalid.GetValue(), wanted, c.CommandPath())
		}
	}
	return exit.Usagef("%w; see %s --help", err, c.CommandPath())
}

func flagNames(c *cobra.Command) (names []string) {
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return names
}

// decimalFlags has the flags of a verb take no number with a leading zero: pflag would read 010 as 8.
func decimalFlags(verb *cobra.Command) {
	verb.Flags().VisitAll(func(f *pflag.Flag) {
		if kind := f.Value.Type(); kind == "int" || kind == "uint32" {
			f.Value = decimal{f.Value}
		}
	})
}

// A decimal is the value of a flag that is a whole number.
type decimal struct{ pflag.Value }

// Set implements pflag.Value.
func (d decimal) Set(text string) error {
	if _, err := strconv.ParseInt(text, 10, 64); err != nil || len(text) > 1 && strings.TrimLeft(text, "+-")[0] == '0' {
		return errors.New("it is not in decimal digits without leading zeros")
	}
	return d.Value.Set(text)
}

// valueOf describes the values of a flag, or returns "" if the flag's own error does.
func valueOf(f *pflag.Flag) string {
	switch f.Value.Type() {
	case "bool":
		return "true or false"
	case "duration":
		return "a time such as 90s, 5m or 24h"
	case "int", "int64", "count":
		return "a whole number in decimal digits, without leading zeros"
	case "uint", "uint16", "uint32", "uint64":
		return "a whole number from 0 on in decimal digits, without leading zeros"
	case "intSlice", "uintSlice":
		return "whole numbers with commas between them"
	}
	return ""
}

// notTogether refuses more than one of some flags that exclude each other.
func notTogether(c *cobra.Command, names ...string) error {
	given := ""
	for _, name := range names {
		switch {
		case !c.Flags().Changed(name):
		case given != "":
			return exit.Usagef("--%s and --%s do not go together: give one of them", given, name)
		default:
			given = name
		}
	}
	return nil
}
