package cli

import (
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

const (
	mostCompletions = 200         // more would not help anyone choose
	completionTime  = time.Second // nobody types and waits for longer
)

// A completer finds what a shell completes.
type completer struct{ *program }

// completeNames makes a shell complete the names of registered things, wherever the usage
// of a verb asks for one.
func (p completer) completeNames(c *cobra.Command) {
	for _, sub := range c.Commands() {
		p.completeNames(sub)
	}
	words := strings.Fields(c.Use)
	if len(words) < 2 || words[0] == "add" || c.ValidArgsFunction != nil {
		return
	}
	names := map[string]func(*cobra.Command, string) []string{
		"IDENTITY": p.identities, "EMAIL": p.users, "DEVICE": p.devices, "DEVICE...": p.devices, "OLD": p.devices,
	}[words[1]]
	if names != nil {
		c.ValidArgsFunction = func(c *cobra.Command, _ []string, begin string) ([]string, cobra.ShellCompDirective) {
			return inTime(func() []string { return matching(names(c, begin), begin) }), cobra.ShellCompDirectiveNoFileComp
		}
	}
}

// inTime returns nothing if find takes too long.
func inTime(find func() []string) []string {
	found := make(chan []string, 1)
	go func() { found <- find() }()
	select {
	case names := <-found:
		return names
	case <-time.After(completionTime):
		return nil
	}
}

// matching are the first names with that prefix that a shell takes literally.
func matching(names []string, begin string) []string {
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, begin) || !harmless(name) })
	slices.Sort(names)
	return names[:min(len(names), mostCompletions)]
}

// harmless reports whether a name means only itself to a shell. The common beginning of
// several names is inserted without quotes, and a second Tab makes bash expand it: a
// device that calls itself $(reboot) must therefore not be completed.
func harmless(name string) bool {
	return name != "" && !strings.ContainsRune("-=", rune(name[0])) && !strings.ContainsFunc(name, func(r rune) bool {
		plain := unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r) || strings.ContainsRune("@%+=:,./_-", r)
		return !plain
	})
}

func (p completer) identities(c *cobra.Command, _ string) (names []string) {
	p.quietly(c, func(s admin.Registry) error {
		all, err := s.Entities()
		for _, e := range all {
			names = append(names, e.Identity)
		}
		return err
	})
	return names
}

func (p completer) users(c *cobra.Command, _ string) (names []string) {
	p.quietly(c, func(s admin.Registry) error {
		all, err := s.Users()
		for _, u := range all {
			names = append(names, u.Name)
		}
		return err
	})
	return names
}

// quietly reads the state without reporting errors, and without the keys, which would
// require the PIN; it therefore does not read etcd.
func (p completer) quietly(c *cobra.Command, do func(admin.Registry) error) {
	path := ""
	if f := c.Flag("state"); f != nil {
		path = f.Value.String()
	}
	conf, err := p.configure()
	if err != nil || path == "" && conf.Server.State.Shared() {
		return
	}
	conf.Keystore = config.Keystore{}
	conf.Server.State.Override(path)
	s, err := admin.KeysOf(conf).Registry()
	if err != nil {
		return
	}
	defer s.Close()
	_ = do(s)
}

func (p completer) devices(_ *cobra.Command, begin string) (names []string) {
	conf, err := p.configure()
	if err != nil || !conf.Server.Enrollment.On() {
		return nil
	}
	if !conf.Server.State.Shared() {
		conf.Keystore = config.Keystore{}
	}
	own := admin.KeysOf(conf)
	defer own.Close()
	s, err := own.Enrollments(false)
	if err != nil {
		return nil
	}
	defer s.Close()
	page, _ := s.Page(enroll.Query{Name: begin, Limit: mostCompletions})
	for _, r := range page.Records {
		if r.Name != "" {
			names = append(names, r.Name)
		}
	}
	return names
}
