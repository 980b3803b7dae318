package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"
)

// made are the files of a server with new keys, whose passphrase is "for the keys".
var made struct {
	once  sync.Once
	files map[string][]byte
	err   error
}

// serverKeys writes server.keys, server.pem and server.db as these commands do with
// the configuration server.yaml, for scripts that are about something else. They are
// made once, as Argon2 and RSA take most of the time of a script.
//
//	exec msl-hsm key create --set server
//	exec msl-hsm key show msl-identity --public
//	cp stdout server.pem
func serverKeys(ts *testscript.TestScript, _ bool, _ []string) {
	made.once.Do(func() { made.files, made.err = makeServerKeys() })
	ts.Check(made.err)
	for name, text := range made.files {
		ts.Check(os.WriteFile(ts.MkAbs(name), text, 0o600))
	}
}

func makeServerKeys() (map[string][]byte, error) {
	dir, err := os.MkdirTemp("", "server")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{
		"passphrase":  "for the keys\n",
		"server.yaml": "keystore: {uri: 'soft:server.keys', pin: 'file:passphrase'}\nserver: {state: server.db}\n",
	} {
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	var out, trouble bytes.Buffer
	for _, args := range [][]string{{"key", "create", "--set", "server"}, {"key", "show", "msl-identity", "--public"}} {
		out.Reset()
		if code := runCheaply(append(args, "--config", path("server.yaml")), nil, &out, &trouble); code != 0 {
			return nil, fmt.Errorf("%v: exit code %d: %s", args, code, trouble.String())
		}
	}
	files := map[string][]byte{"server.pem": out.Bytes()}
	for _, name := range []string{"server.keys", "server.db"} {
		if files[name], err = os.ReadFile(path(name)); err != nil {
			return nil, err
		}
	}
	return files, nil
}
