package serverside

import (
	"slices"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
)

// Watch reloads the configuration when it or a file that it names was replaced, until the
// returned function is called. Settings may disable this.
func (l *Live) Watch() (end func()) {
	every := time.Duration(l.now.Load().config.Server.Watch)
	if every == 0 {
		return func() {}
	}
	l.files.Files, l.files.Take, l.files.Every = l.watched, l.take, every
	return l.files.Start()
}

// take takes files that were replaced. An unusable one is reported once; the earlier
// content stays in use until it can be used.
func (l *Live) take(changed []string, tried bool) error {
	atStart := l.now.Load().config.StartFiles()
	if !slices.ContainsFunc(changed, func(path string) bool { return !slices.Contains(atStart, path) }) {
		l.Log.Warn("files changed that are read only at the start: restart the server to use them", "files", strings.Join(changed, ", "))
		return nil
	}
	_, err := l.again()
	if err != nil && !tried {
		l.Log.Warn("changed files cannot be used: the server continues with their previous contents", "files", strings.Join(changed, ", "), "error", exit.OneLine(err))
	}
	return err
}
