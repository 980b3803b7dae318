package serverside

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/statuspage"
	"github.com/msl-hsm/msl-hsm/internal/safetext"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
)

const (
	// keysFor is how long a list of the keys is shown: making one occupies the device.
	keysFor = time.Minute
	// membersFor is the same for queries of the cluster's members.
	membersFor = 4 * time.Second
	// mostDevices is how many waiting devices are shown.
	mostDevices = 20
)

// overview is what the operators' page shows.
func (l *Live) overview(r *http.Request) statuspage.Overview {
	g, ctx := l.now.Load(), r.Context()
	found := g.Ready(ctx)
	version, revision := buildVersion()
	if version == "(devel)" {
		version = cmp.Or(revision, version)
	}
	measured := len(keys.StatsOf(g.Store)) > 0
	o := statuspage.Overview{
		Now: time.Now(), Started: g.started, Identity: g.MSL.Name, Version: version, Custody: g.MSL.Custody.String(),
		Ready: found.Ready, Measured: measured, Keys: g.keysNow(ctx), Sessions: g.numbers(), Enrollments: g.waiting(ctx), State: g.stateNow(ctx),
	}
	for _, c := range found.Checks {
		o.Checks = append(o.Checks, statuspage.Check{Name: c.Name, Verdict: string(c.Verdict), Detail: c.Detail})
	}
	g.past.Fill(&o)
	return o
}

// keysNow lists the keys, as reported by the store within the last minute.
func (g *generation) keysNow(ctx context.Context) statuspage.Keys {
	all, at, err := g.keysSeen.look(ctx, keysFor, g.Store.List)
	k := statuspage.Keys{Store: storeOf(&g.config.Keystore), Read: at}
	if err != nil {
		k.Error = "The keys cannot be listed: " + exit.OneLine(err)
		return k
	}
	purposes := map[string]string{}
	for _, whose := range []string{"server", "audit"} {
		set, _ := keys.KeySet(whose, g.prefix) // these names are valid
		for _, p := range set {
			purposes[p.Label] = p.Purpose
		}
	}
	issuing, label := g.MSL.Issuer.Ring()[0].Version, keystore.RoleIssuerMAC.Label(g.prefix)
	for _, i := range all {
		k.Keys = append(k.Keys, statuspage.Key{Info: i, Purpose: purposes[i.Label], Issues: i.Label == label && i.Version == issuing})
	}
	slices.SortStableFunc(k.Keys, func(a, b statuspage.Key) int { return a.Info.Compare(b.Info) })
	return k
}

// numbers are about sessions and other things in use.
func (g *generation) numbers() []statuspage.Number {
	st := g.MSL.Stats()
	all := []statuspage.Number{
		{Name: "Sessions remembered", Value: fmt.Sprint(st.Sessions)},
		{Name: "Messages that used one", Value: shareOf(st.Hits, st.Misses)},
		{Name: "Open connections", Value: fmt.Sprint(g.Connections.Open())},
		{Name: "Memory for messages", Value: fmt.Sprintf("%d KiB for proven senders, %d KiB for others", st.Proven>>10, st.Unproven>>10)},
	}
	devices := keys.StatsOf(g.Store)
	for _, d := range devices {
		of := ""
		if len(devices) > 1 {
			of = ", " + d.Token
		}
		all = append(all,
			statuspage.Number{Name: "PKCS #11 sessions" + of, Value: fmt.Sprintf("%d in use of %d open", d.InUse, d.Open)},
			statuspage.Number{Name: "Session objects in the token" + of, Value: fmt.Sprint(d.Objects)},
			statuspage.Number{Name: "Device reopened" + of, Value: times(max(d.Epoch, 1) - 1)})
	}
	return all
}

func shareOf(hits, misses uint64) string {
	if hits+misses == 0 {
		return "–"
	}
	return fmt.Sprintf("%d of %d", hits, hits+misses)
}

func times(n uint64) string {
	switch n {
	case 0:
		return "never"
	case 1:
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// waiting lists devices waiting for a person, or is nil if none enroll here.
func (g *generation) waiting(ctx context.Context) *statuspage.Enrollments {
	if g.Devices == nil {
		return nil
	}
	n, err := g.Devices.Count(ctx, enroll.Pending)
	var page enroll.Page
	if err == nil {
		page, err = g.Devices.Page(ctx, enroll.Query{State: enroll.Pending, Limit: mostDevices})
	}
	if err != nil {
		return &statuspage.Enrollments{Error: "The enrollments cannot be read: " + exit.OneLine(err)}
	}
	e := &statuspage.Enrollments{Waiting: n}
	for _, r := range page.Records {
		e.Oldest = append(e.Oldest, statuspage.Device{ID: r.ID.String(), Name: safetext.String(r.Name), Waits: safetext.String(r.Waits), Since: r.Updated})
	}
	return e
}

// stateNow says where the state is, and who shares it.
func (g *generation) stateNow(ctx context.Context) statuspage.State {
	own := &g.config.Server.State
	if !own.Shared() {
		found := statuspage.State{Engine: "a file on this server", Where: own.Path()}
		info, err := os.Stat(own.Path())
		if err != nil {
			found.Error = exit.OneLine(err)
			return found
		}
		found.Size = info.Size()
		return found
	}
	found, _, err := g.stateSeen.look(ctx, membersFor, func() (statuspage.State, error) { return g.cluster(), nil })
	found.Engine, found.Where = "etcd, shared by servers", own.String()
	if err != nil {
		found.Error = exit.OneLine(err)
	}
	return found
}

// cluster asks the members of etcd, and lists the servers that share the state.
func (g *generation) cluster() (found statuspage.State) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, m := range g.State.Members(ctx) {
		of := statuspage.Member{Endpoint: m.Endpoint, Version: m.Version, Leader: m.Leader, Size: m.Size}
		if m.Err != nil {
			of.Error = exit.OneLine(m.Err)
		}
		found.Members = append(found.Members, of)
	}
	servers, err := g.State.Presences(ctx)
	if err != nil {
		found.Error = exit.OneLine(err)
	}
	for _, p := range servers {
		found.Servers = append(found.Servers, statuspage.Server{Name: p.Name, Problem: p.Problem})
	}
	slices.SortFunc(found.Servers, func(a, b statuspage.Server) int { return strings.Compare(a.Name, b.Name) })
	return found
}

// storeOf names a key store, without parts of its URI that may be secret (RFC 7512,
// section 2.4).
func storeOf(k *config.Keystore) string {
	uri, _, _ := strings.Cut(k.URI, "?")
	switch {
	case strings.HasPrefix(uri, "soft:"):
		return "Keys in software, in the file " + strings.TrimPrefix(uri, "soft:")
	case strings.HasPrefix(uri, "tpm:"):
		return "Keys in this machine's TPM"
	case k.Isolate:
		return "PKCS #11 token " + uri + ", opened in a process of its own"
	}
	return "PKCS #11 token " + cmp.Or(uri, "in "+k.SoftHSM)
}
