//go:build !noetcd

package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
)

// TestMemberOfEtcd pauses a member of etcd (the long form: each, and it is then lost with its disk
// and replaced by a new one at the same place): verbs and a server go on meanwhile and afterwards,
// and a message is not taken again.
func TestMemberOfEtcd(t *testing.T) {
	skipWithRace(t)
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	members := etcdtest.StartCluster(t, 3)
	b := newCutBench(t, fmt.Sprintf("keystore: {uri: \"soft:DIR/keys\", pin: \"file:DIR/password\"}\nserver: {state: {etcd: [%s]}}\n", strings.Join(etcdtest.URLs(members), ", ")))
	camera := newTroubled(b)
	soak := os.Getenv("MSL_SOAK") != ""
	for i, m := range members {
		if !soak && i > 0 {
			break
		}
		m.Stop()
		b.goOn(camera, fmt.Sprint("paused-", i))
		m.Continue()
		if soak {
			m.Kill()
			m.Replace(t, members[(i+1)%len(members)])
			b.goOn(camera, fmt.Sprint("replaced-", i))
		}
	}
	if out := b.must("state check"); !strings.Contains(out, "authentic") {
		t.Error(out)
	}
}

// goOn changes the state and sends a message that changes it.
func (b cutBench) goOn(camera troubled, name string) {
	b.Helper()
	b.must("entity add " + name + " --none")
	if out := b.must("entity list"); !strings.Contains(out, name) {
		b.Errorf("%s was not added: %s", name, out)
	}
	camera.eventually(name + " --non-replayable")
	b.must("entity revoke " + name)
}
