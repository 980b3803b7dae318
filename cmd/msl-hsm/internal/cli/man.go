package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manCommand is for packages: it writes the help texts as pages for man(1).
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the manual pages of all verbs into a directory",
		Hidden: true,
		Args:   want("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("%w; name another directory", err)
			}
			return writePages(c.Root(), args[0])
		},
	}
}

func writePages(c *cobra.Command, dir string) error {
	if !c.IsAvailableCommand() && c.HasParent() && !c.IsAdditionalHelpTopicCommand() || c.Name() == "help" {
		return nil
	}
	path := filepath.Join(dir, pageName(c)+".1")
	if err := atomicfile.Replace(path, []byte(manPage(c)), 0o644); err != nil {
		return fmt.Errorf("%w; make the directory, or name another", err)
	}
	for _, sub := range c.Commands() {
		if err := writePages(sub, dir); err != nil {
			return err
		}
	}
	return nil
}

func pageName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manPage returns a page in the macros of man(7). It has no date, so that the same program
// writes the same pages.
func manPage(c *cobra.Command) string {
	c.InitDefaultHelpFlag()
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s 1 \"\" \"msl-hsm %s\" \"User Commands\"\n", strings.ToUpper(roff(pageName(c))), roff(readBuild().Version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(pageName(c)), roff(c.Short))
	if c.Runnable() && !c.IsAdditionalHelpTopicCommand() {
		fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(c.UseLine()))
	}
	if long := c.Long; long != "" {
		b.WriteString(".SH DESCRIPTION\n" + paragraphs(long))
	}
	if c.HasAvailableSubCommands() {
		b.WriteString(".SH COMMANDS\n")
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" {
				fmt.Fprintf(&b, ".TP\n.BR %s (1)\n%s\n", roff(pageName(sub)), roff(sub.Short))
			}
		}
	}
	b.WriteString(options("OPTIONS", c.NonInheritedFlags()) + options("OPTIONS OF ALL VERBS", c.InheritedFlags()))
	b.WriteString(seeAlso(c))
	return b.String()
}

func options(title string, flags *pflag.FlagSet) string {
	var b strings.Builder
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" && f.DefValue != "[]" && f.DefValue != "0s" {
			usage += " (default " + f.DefValue + ")"
		}
		if f.NoOptDefVal != "" && value != "" {
			name, value = name+"[="+value+"]", ""
		}
		fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", strings.TrimSpace(roff(name)+" "+roff(value)), roff(usage))
	})
	if b.Len() == 0 {
		return ""
	}
	return ".SH " + title + "\n" + b.String()
}

func seeAlso(c *cobra.Command) string {
	also := "exit codes: msl-hsm help exit-codes; configuration: docs/configuration.md"
	if c.HasParent() {
		return fmt.Sprintf(".SH SEE ALSO\n.BR %s (1);\n%s\n", roff(pageName(c.Parent())), roff(also))
	}
	return ".SH SEE ALSO\n" + roff(also) + "\n"
}

// paragraphs keeps indented lines as they are, and fills the others.
func paragraphs(text string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(text, "\n\n") {
		if strings.HasPrefix(part, " ") {
			fmt.Fprintf(&b, ".PP\n.nf\n%s\n.fi\n", roff(part))
			continue
		}
		fmt.Fprintf(&b, ".PP\n%s\n", roff(part))
	}
	return b.String()
}

// roff escapes what roff(7) would interpret as a request or a special character.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
