//go:build !noetcd

package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/internal/porttest"
)

// A trouble of etcd, and what verbs say about it.
type trouble struct {
	name       string
	begin, end func()
	says       string
}

func troubles(t *testing.T, m *etcdtest.Member) []trouble {
	return []trouble{
		{"full", func() { m.Fill(t) }, func() { m.Clear(t) }, "run etcdctl alarm disarm"},
		{"killed", m.Kill, func() { m.Restart(t) }, "check that etcd is running"},
		{"paused", m.Stop, m.Continue, "check that most of its members run"},
	}
}

// TestEtcdInTrouble has verbs that change the state find an etcd whose database is full (the long
// form: more verbs, and an etcd that was killed, or paused): they fail in a line that says what to do, change nothing by
// half, and can be repeated. A server that runs answers what needs no change, tells devices to try
// again, and goes on by itself.
func TestEtcdInTrouble(t *testing.T) {
	skipWithRace(t)
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	m := etcdtest.StartDurable(t, "--quota-backend-bytes", "3000000")
	b := newCutBench(t, fmt.Sprintf("keystore: {uri: \"soft:DIR/keys\", pin: \"file:DIR/password\"}\nserver: {state: {etcd: [%s], staleness: 1h}}\n", m.URL))
	camera := newTroubled(b)
	all, verbs := troubles(t, m), append(cutVerbs, moreVerbs...)
	if os.Getenv("MSL_SOAK") == "" {
		all, verbs = all[:1], cutVerbs[:3]
	}
	for i, trouble := range all {
		for _, v := range verbs {
			b.cut(v.about(i), func(args []string) { b.during(trouble, args...) })
		}
		keys := b.must("key list")
		b.during(trouble, b.words("key rotate")...)
		if now := b.must("key list"); now != keys {
			t.Errorf("%s: key rotate made a part of %s", trouble.name, now)
		}
		b.must("key rotate")
		camera.during(trouble)
	}
}

// moreVerbs are verbs on a state that only take effect where cutVerbs have been.
var moreVerbs = []cutVerb{
	{"user revoke ada-N", "user list", `ada-N +revoked`, ""},
	{"user unrevoke ada-N", "user list", `ada-N +registered`, "is not revoked"},
	{"user remove ada-N", "user list", `ada-N +removed`, "not registered"},
}

// during runs a verb that must fail because of a trouble.
func (b cutBench) during(of trouble, args ...string) {
	b.Helper()
	of.begin()
	defer of.end()
	out, err := exec.Command("msl-hsm", args...).CombinedOutput()
	if err == nil || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), of.says) {
		b.Errorf("%s: %v: %v: %s", of.name, args, err, out)
	}
}

// A troubled device sends messages to a server whose etcd is in trouble.
type troubled struct {
	t         *testing.T
	dir, send string
}

// newTroubled starts a server, which nobody restarts.
func newTroubled(b cutBench) troubled {
	b.Helper()
	dir, address := b.TempDir(), porttest.Address(b)
	b.must("entity add camera --generate-psk " + filepath.Join(dir, "camera.psk"))
	write(b.T, dir, "server.pem", b.must("key show msl-identity --public"))
	launch(b.T, dir, b.words("serve --listen "+address+" --ready-file "+filepath.Join(dir, "ready"))...)
	await(b.T, "ready", func() bool { _, err := os.Stat(filepath.Join(dir, "ready")); return err == nil })
	d := troubled{b.T, dir, "send http://" + address + "/ --psk-file camera.psk --server-key server.pem --state camera.db --timeout 5s --data "}
	d.must("first --non-replayable")
	return d
}

func (d troubled) try(args string) (string, error) {
	c := exec.Command("msl-hsm", strings.Fields(d.send+args)...)
	c.Dir = d.dir
	out, err := c.CombinedOutput()
	return string(out), err
}

func (d troubled) must(args string) {
	d.t.Helper()
	if out, err := d.try(args); err != nil {
		d.t.Errorf("%s: %v: %s", args, err, out)
	}
}

func (d troubled) during(of trouble) {
	d.t.Helper()
	of.begin()
	d.must("plain")
	if out, err := d.try("once --non-replayable"); err == nil || !strings.Contains(out, "TRANSIENT_FAILURE") {
		d.t.Errorf("%s: %v: %s", of.name, err, out)
	}
	of.end()
	d.eventually("after --non-replayable")
}

// eventually sends a message until it is answered.
func (d troubled) eventually(args string) {
	d.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		out, err := d.try(args)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			d.t.Errorf("%s: %s", args, out)
			return
		}
	}
}
