package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/internal/atomicfile"
	"github.com/msl-hsm/msl-hsm/internal/plainfile"
)

// Read reads a file over the defaults, makes the paths in it absolute, and checks it.
func (c *Config) Read(path string) error { return readBy(plainfile.Read, c, path) }

// ReadFound is Read of a file that nobody named, found in the working directory. It names
// libraries to load, so one that belongs to neither this user nor root is refused: it would
// run code of its owner for whoever comes to that directory. So is one to which a link of
// another user leads: relative paths in it would be paths in that directory.
func (c *Config) ReadFound(path string) error {
	return readBy(readTrusted, c, path)
}

func readTrusted(path string) ([]byte, error) {
	end, err := atomicfile.End(path)
	if errors.Is(err, atomicfile.ErrForeignLink) {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errForeign}
	}
	if err != nil {
		return nil, err
	}
	return plainfile.ReadIf(end, func(info fs.FileInfo) error {
		// what was opened, and no link that took its place meanwhile
		if there, err := os.Lstat(end); err != nil || !os.SameFile(there, info) || !atomicfile.Trusted(info) {
			return errForeign
		}
		return nil
	})
}

var errForeign = errors.New("it belongs to another user")

func readBy(from func(path string) ([]byte, error), c *Config, path string) error {
	data, err := from(path)
	switch {
	case errors.Is(err, errForeign):
		return exit.Usagef("configuration: %w: to use it, name it with --config %s", err, path)
	case exit.IsAny(err, syscall.EMFILE, syscall.ENFILE, syscall.EIO, syscall.ESTALE): // another file does not help
		return exit.Usagef("configuration: %w", err)
	case err != nil:
		return exit.Usagef("configuration: %w; name another file with --config", err)
	}
	if err := DecodeYAML(path, data, c); err != nil {
		return err
	}
	c.Blank, c.path, c.data = isBlank(data), path, data
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return err
	}
	c.settle(dir)
	return located(path, data, check(c, filepath.Join(dir, filepath.Base(path))))
}

func (c *Config) settle(dir string) {
	c.Server.TLS.settle(dir)
	c.Client.TLS.settle(dir)
	c.Client.Agent.settle(dir)
	c.Client.Attest.EventLog = within(dir, c.Client.Attest.EventLog)
	c.Server.Upstream.settle(dir)
	c.Server.State.settle(dir)
	c.Server.Enrollment.settle(dir)
	if path, ok := CutUnix(c.Server.Push.From); ok {
		c.Server.Push.From = "unix:" + within(dir, path)
	}
	for _, path := range []*string{
		&c.Keystore.SoftHSM, &c.Server.Certificate,
		&c.Server.X509Roots, &c.Server.X509Intermediates, &c.Server.X509CRL,
		&c.Client.PSK, &c.Client.Certificate, &c.Client.State, &c.Client.EarlierState,
		&c.Server.Failures.Log, &c.Server.Audit.File, &c.Server.Messages, &c.Client.Failures.Spool,
		&c.Client.ServerKey, &c.Client.ServerRoots, &c.Client.ServerIntermediates, &c.Client.ServerPSK,
	} {
		*path = within(dir, *path)
	}
	if c.Server.AccessLog != AccessNone && c.Server.AccessLog != AccessInLog {
		c.Server.AccessLog = within(dir, c.Server.AccessLog)
	}
	c.Server.Admin.Socket = within(dir, c.Server.Admin.Socket)
	for _, source := range []*string{&c.Server.Admin.Token, &c.Keystore.PIN, &c.Keystore.Owner, &c.Keystore.Endorsement, &c.Keystore.Lockout, &c.Client.Password, &c.Keystore.URI} {
		*source = Settled(dir, *source)
	}
}
