package cli

import (
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/msl-hsm/msl-hsm/internal/kv/authkv"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/keystore/soft"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

// oldKeys KEYFILE PASSPHRASE STATE SCHEME IDENTITY PSKFILE registers an entity as
// older versions did: the MAC key sealed by itself, the wrapping key derived.
func oldKeys(ts *testscript.TestScript, _ bool, args []string) {
	store, err := soft.Config{CheapForTests: true}.Open(ts.MkAbs(args[0]), []byte(args[1]))
	ts.Check(err)
	defer store.Close()
	k := entityauth.NewPSKFile(args[4], true)
	ts.Check(k.Write(ts.MkAbs(args[5])))
	sealed, err := k.Seal(store)
	ts.Check(err)
	mac, err := store.Import(keystore.HMACSHA256, k.MAC)
	ts.Check(err)
	sealed.MAC, err = store.Seal(mac, msl.PSKContext(msl.PSKMAC, args[4]))
	ts.Check(err)
	key, err := state.KeyOf(store, keystore.RoleIssuerMAC.Label(keystore.DefaultPrefix))
	ts.Check(err)
	guard := bolt.Guard{Key: func() (bolt.Key, authkv.Mark, error) { return key, nil, nil }}
	s, err := bolt.Files{Guard: guard}.Reopen(ts.MkAbs(args[2]))
	ts.Check(err)
	ts.Check(s.AddEntity(state.EntityRecord{Identity: args[4], Scheme: args[3], PSK: sealed}))
	ts.Check(s.Close())
}
