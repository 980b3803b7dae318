package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commandLine is a command of msl-hsm in a page, up to where another one begins.
var commandLine = regexp.MustCompile("(?:\\./)?msl-hsm (?:[a-z][^`\\n#|;>]*)")

// TestDocumentedFlags looks for the flags of every command line in the documentation among
// those that its verb has.
func TestDocumentedFlags(t *testing.T) {
	skipWithRace(t)
	root := rootCommand(&program{defaults: cheap})
	pages, err := filepath.Glob("../../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range append(pages, "../../../../README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		joined := strings.ReplaceAll(string(text), "\\\n", " ")
		for _, line := range commandLine.FindAllString(joined, -1) {
			for _, one := range strings.Split(strings.TrimPrefix(line, "./"), "msl-hsm ")[1:] { // two may stand side by side
				found += flagsExist(t, root, filepath.Base(name), "msl-hsm "+one)
			}
		}
	}
	if found < 80 {
		t.Errorf("found %d flags", found)
	}
}

// flagsExist counts the flags in a command line, each of which its verb must have.
func flagsExist(t *testing.T, root *cobra.Command, page, line string) (found int) {
	words := strings.Fields(line)
	c, _, err := root.Find(words[1:])
	if err != nil || c == root {
		return 0 // a sentence about the program
	}
	c.InheritedFlags() // merges those of the parents
	for _, flag := range regexp.MustCompile(`(?:^| )--([a-z][a-z-]*)`).FindAllStringSubmatch(line, -1) {
		found++
		if c.Flags().Lookup(flag[1]) == nil && c.InheritedFlags().Lookup(flag[1]) == nil && flag[1] != "help" {
			t.Errorf("%s: %s has no flag --%s: %s", page, c.CommandPath(), flag[1], line)
		}
	}
	return found
}

// TestOptionalValue wants help and manual pages to show that a value which may be left out
// follows an equals sign.
func TestOptionalValue(t *testing.T) {
	found := 0
	everyVerb(rootCommand(&program{defaults: cheap}), func(c *cobra.Command) {
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			value, _ := pflag.UnquoteUsage(f)
			if f.NoOptDefVal == "" || value == "" {
				return
			}
			found++
			want := "--" + f.Name + "[=" + value + "] "
			if help := c.UsageString(); !strings.Contains(help, want) {
				t.Errorf("the help of %s does not have %q:\n%s", c.CommandPath(), want, help)
			}
			if page := manPage(c); !strings.Contains(page, ".B "+roff(strings.TrimSpace(want))+"\n") {
				t.Errorf("the page of %s does not have %q:\n%s", c.CommandPath(), want, page)
			}
		})
	})
	if found < 4 {
		t.Errorf("found %d flags with a value that may be left out", found)
	}
}

// TestHelpStyle wants the texts of all verbs and flags to look alike.
func TestHelpStyle(t *testing.T) {
	untyped := []string{"string", "strings", "stringArray", "int", "ints", "uint", "duration"}
	everyVerb(rootCommand(&program{defaults: cheap}), func(c *cobra.Command) {
		if c.HasParent() && (c.Parent().Name() == "completion" || c.Name() == "completion" || c.Name() == "help") {
			return // cobra's own
		}
		if !unicode.IsUpper(rune(c.Short[0])) || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: %q: want a sentence without a full stop", c.CommandPath(), c.Short)
		}
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			value, usage := pflag.UnquoteUsage(f)
			if usage == "" || strings.HasSuffix(usage, ".") || slices.Contains(untyped, value) {
				t.Errorf("%s --%s %s: %q: want the name of its value, and no full stop", c.CommandPath(), f.Name, value, usage)
			}
		})
	})
}
