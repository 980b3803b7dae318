//go:build cgo && !nopkcs11 && !noetcd

package cli

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/msl-hsm/msl-hsm/hsm"
	"github.com/msl-hsm/msl-hsm/hsm/hsmtest"
	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/softhsm"
)

// TestKilledVerbs ends processes at their last calls of functions of the module while they change
// a state: before the change is authenticated, or after it was written (the long form: at more
// calls). A run about other names tells which call is the last.
func TestKilledVerbs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel() // most of them are spent waiting for the next second
	t.Run("file", func(t *testing.T) { killVerbs(t, "DIR/state.db", 0) })
	t.Run("etcd", func(t *testing.T) {
		killVerbs(t, fmt.Sprintf("{etcd: [%s]}", etcdtest.Start(t).URL), 1)
	})
}

func killVerbs(t *testing.T, state string, first int) {
	skipWithRace(t)
	lockModule(t)
	token := softhsm.Temp(t)
	m := hsmtest.New(t, token.Module)
	b := newCutBench(t, fmt.Sprintf("keystore: {uri: %q, pin: \"%s\"}\nserver: {state: %s}\n", (&hsm.URI{Token: token.Label, ModulePath: m.Path}).String(), token.PIN, state))
	functions := []string{"C_Sign", "C_Finalize"}
	rounds := 1
	if os.Getenv("MSL_SOAK") != "" {
		functions = append(functions, "C_Login", "C_FindObjects", "C_SignInit", "C_CloseSession")
		rounds = len(functions)
	}
	for round := range rounds {
		for i, v := range cutVerbs {
			function := functions[(first+i+round)%len(functions)]
			before := m.Counters().Calls[function]
			b.must(v.about(100 + round).verb)
			last := int(m.Counters().Calls[function]-before) - 1
			b.cut(v.about(round), func(args []string) {
				m.Inject(hsmtest.Fault{Function: function, Abort: true, Skip: last})
				defer m.Clear()
				if out, _ := exec.Command("msl-hsm", args...).CombinedOutput(); m.Counters().Fired == 0 {
					t.Errorf("%v did not call %s: %s", args, function, out)
				}
			})
		}
	}
}
