package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// madeKeys are the files of a server with new keys, whose passphrase is "for the keys".
var madeKeys, madeToken made

// madeIdentities are the files of tokens with an identity, by the label of the token.
var madeIdentities sync.Map

// made are files that a test takes as they are, by name. They are made once, as RSA keys
// take most of the time of a script.
type made struct {
	once  sync.Once
	files map[string][]byte
	err   error
}

// put writes the files into a directory.
func (m *made) put(dir string, make func(dir string) error) error {
	m.once.Do(func() { m.files, m.err = filesOf(make) })
	err := m.err
	for name, text := range m.files {
		path := filepath.Join(dir, name)
		err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, text, 0o600))
	}
	return err
}

// filesOf returns what make writes to a directory.
func filesOf(make func(dir string) error) (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "made")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := make(dir); err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[name], err = os.ReadFile(path)
		return err
	})
	return files, err
}

// serverKeys writes server.keys, server.pem and server.db as these commands do with
// the configuration server.yaml, for scripts that are about something else.
//
//	exec msl-hsm key create --set server
//	exec msl-hsm key show msl-identity --public
//	cp stdout server.pem
func serverKeys(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(madeKeys.put(ts.MkAbs("."), makeServerKeys))
}

func makeServerKeys(dir string) error {
	config := filepath.Join(dir, "server.yaml")
	for name, text := range map[string]string{
		"passphrase":  "for the keys\n",
		"server.yaml": "keystore: {uri: 'soft:server.keys', pin: 'file:passphrase'}\nserver: {state: server.db}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
		defer os.Remove(filepath.Join(dir, name)) // a script has its own
	}
	return withPublicKey(dir, config)
}

// serverToken writes the directory dev and server.pem as these commands do, for scripts
// that are about something else.
//
//	exec msl-hsm token init --softhsm dev
//	env MSL_HSM_CONFIG=dev/msl-hsm.yaml
//	exec msl-hsm key create --set server
//	exec msl-hsm key show msl-identity --public
//	cp stdout server.pem
func serverToken(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(madeToken.put(ts.MkAbs("."), makeServerToken))
	ts.Setenv("MSL_HSM_CONFIG", "dev/msl-hsm.yaml")
}

func makeServerToken(dir string) error {
	if _, err := inProcess(dir, "token", "init", "--softhsm", "dev"); err != nil {
		return err
	}
	// It has a whole path, and is made again where a command finds none.
	defer os.Remove(filepath.Join(dir, "dev", "softhsm2.conf"))
	return withPublicKey(dir, "dev/msl-hsm.yaml")
}

// identityToken DIR [LABEL] writes the directory as these commands do, for scripts that are
// about something else.
//
//	exec msl-hsm token init --softhsm DIR --label LABEL
//	exec msl-hsm key create msl-identity --algorithm rsa2048-sign --config DIR/msl-hsm.yaml
func identityToken(ts *testscript.TestScript, _ bool, args []string) {
	label := append(args, "dev")[1]
	m, _ := madeIdentities.LoadOrStore(label, &made{})
	ts.Check(m.(*made).put(ts.MkAbs(args[0]), func(dir string) error {
		_, err := inProcess(dir, "token", "init", "--softhsm", ".", "--label", label)
		if err == nil {
			_, err = inProcess(dir, "key", "create", "msl-identity", "--algorithm", "rsa2048-sign", "--config", "msl-hsm.yaml")
		}
		return errors.Join(err, os.Remove(filepath.Join(dir, "softhsm2.conf")))
	}))
}

// withPublicKey makes the keys of a server, and server.pem.
func withPublicKey(dir, config string) error {
	if _, err := inProcess(dir, "key", "create", "--set", "server", "--config", config); err != nil {
		return err
	}
	public, err := inProcess(dir, "key", "show", "msl-identity", "--public", "--config", config)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "server.pem"), public, 0o600)
}

// inProcess runs a command in a process of its own, since a SoftHSM knows one directory.
func inProcess(dir string, args ...string) ([]byte, error) {
	c := exec.Command("msl-hsm", args...)
	c.Dir = dir
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w", args, err)
	}
	return out, nil
}
