package cli

import (
	"errors"
	"io/fs"
	"os"
	"regexp"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
)

// readyText is what ready files contain: URLs, some after the name of what listens there, or a
// socket, whose path is written as it is.
var readyText = regexp.MustCompile(`^(?:unix:.*\n|(?:[a-z]+ )?[a-z]+://\S*\n)*$`)

// checkReady refuses a ready file in place of another file, which would be lost.
func checkReady(path string) error {
	info, err := os.Stat(path)
	switch {
	case path == "", errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return exit.Usagef("--ready-file: %w: name another path", err)
	case !info.Mode().IsRegular():
		return exit.Usagef("--ready-file: %s is not a regular file: name another path", exit.Printable(path))
	}
	text, err := plainfile.Read(path)
	if err != nil {
		return exit.Usagef("--ready-file: %w: name another path", err)
	}
	if !readyText.Match(text) {
		return exit.Usagef("--ready-file: %s has other content than a ready file: name another path, or remove it", exit.Printable(path))
	}
	return nil
}

// forgetReady removes the ready file of an earlier process.
func forgetReady(path string) error {
	if err := checkReady(path); path == "" || err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return exit.Usagef("--ready-file: %w: name another path", err)
	}
	return nil
}

// writeReady writes the URLs of this process to the ready file, if one is named.
func writeReady(path, urls string) error {
	if path == "" {
		return nil
	}
	return atomicfile.Replace(path, []byte(urls+"\n"), 0o644)
}
