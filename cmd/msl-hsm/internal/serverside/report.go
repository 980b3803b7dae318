package serverside

import (
	"context"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/metrics"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/mslhttp"
)

// report is called with each message that the server has finished with.
func (b *base) report(ctx context.Context, v msl.Served) {
	b.Metrics.Message(v)
	b.access.write(ctx, v)
	b.audit.message(v)
	if v.Fault == msl.FaultKeyStore {
		b.keysFailed.Store(&keysFailure{v.Err, time.Now()})
	}
	if b.past != nil {
		b.past.Message(&v)
	}
}

// called is called with each operation of the key store.
func (b *base) called(c keystore.Call) {
	b.Metrics.Call(c)
	if b.past != nil {
		b.past.Call(c)
	}
}

// reportUpstream is called with each request to the service.
func (b *base) reportUpstream(m *msl.Message, c mslhttp.UpstreamCall) {
	b.Metrics.Upstream(c)
	noteUpstream(m, c)
}

// A keyUse records when each version of a key was last used.
type keyUse struct{ seconds sync.Map } // of *atomic.Int64, by version

func (u *keyUse) note(version uint32) {
	last, ok := u.seconds.Load(version)
	if !ok {
		last, _ = u.seconds.LoadOrStore(version, new(atomic.Int64))
	}
	last.(*atomic.Int64).Store(time.Now().Unix())
}

// of returns when a version was last used in this process, or zero.
func (u *keyUse) of(version uint32) int64 {
	if last, ok := u.seconds.Load(version); ok {
		return last.(*atomic.Int64).Load()
	}
	return 0
}

// values are collected when the metrics are read.
func (s *Service) values() []metrics.Value {
	st := s.MSL.Stats()
	all := []metrics.Value{
		{Name: "sessions", Help: "Master tokens whose session is remembered.", Value: float64(st.Sessions)},
		{Name: "session_lookups_total", Help: "Messages under a master token, by whether its session was remembered.", Value: float64(st.Hits), Counts: true, Labels: label("result", "hit")},
		{Name: "session_lookups_total", Help: "Messages under a master token, by whether its session was remembered.", Value: float64(st.Misses), Counts: true, Labels: label("result", "miss")},
		{Name: "message_memory_bytes", Help: "Memory for messages that is in use.", Value: float64(st.Unproven), Labels: label("sender", "unproven")},
		{Name: "message_memory_bytes", Help: "Memory for messages that is in use.", Value: float64(st.Proven), Labels: label("sender", "proven")},
		{Name: "connections", Help: "Connections that are open.", Value: float64(s.Connections.Open())},
	}
	for i, k := range s.MSL.Issuer.Ring() {
		version := label("version", strconv.Itoa(int(k.Version)))
		issues := 0.0
		if i == 0 {
			issues = 1
		}
		all = append(all,
			metrics.Value{Name: "issuer_key_versions", Help: "Versions of the issuer key that open tokens; 1 for the one that issues.", Value: issues, Labels: version},
			metrics.Value{Name: "issuer_key_used_timestamp_seconds", Help: "When a version of the issuer key last opened or issued a token in this process; 0 means never.", Value: float64(s.issuerUse.of(k.Version)), Labels: version})
	}
	for why, times := range s.Connections.TurnedAway() {
		all = append(all, metrics.Value{Name: "turned_away_total", Help: "Connections and requests that ended before a message was read, by reason.", Value: float64(times), Counts: true, Labels: label("reason", string(why))})
	}
	return slices.Concat(all, s.readyValues(), s.certificateValues(), s.deviceValues(), s.alertValues(), s.audit.values())
}

// readyValues are the results of the readiness checks.
func (s *Service) readyValues() (all []metrics.Value) {
	worst := map[string]float64{}
	for _, c := range s.Ready(context.Background()).Checks {
		if _, ok := worst[c.Name]; !ok {
			worst[c.Name] = 1
		}
		if c.Verdict == Failure {
			worst[c.Name] = 0
		}
	}
	for name, value := range worst {
		all = append(all, metrics.Value{Name: "ready", Help: "Whether a readiness check passes.", Value: value, Labels: label("check", name)})
	}
	return all
}

func (s *Service) alertValues() (all []metrics.Value) {
	for _, c := range s.alerts.Counts() {
		all = append(all, metrics.Value{Name: "tls_alerts_total", Help: "TLS alerts, by whether this side sent or received them.", Value: float64(c.Times), Counts: true,
			Labels: [][2]string{{"alert", c.Alert.String()}, {"origin", c.Origin.String()}, {"fatal", strconv.FormatBool(c.Fatal)}}})
	}
	return all
}

func label(name, value string) [][2]string { return [][2]string{{name, value}} }

func (s *Service) certificateValues() (all []metrics.Value) {
	for _, c := range s.certificates {
		all = append(all, metrics.Value{Name: "certificate_not_after_timestamp_seconds", Help: "When a certificate that is shown to others, or issues theirs, expires.",
			Value: float64(c.leaf.NotAfter.Unix()), Labels: [][2]string{{"setting", c.setting}, {"file", c.file}}})
	}
	for _, f := range s.revoking {
		from, _, until := f.lists.Lifetime()
		of := [][2]string{{"setting", f.setting}, {"file", f.path}}
		all = append(all,
			metrics.Value{Name: "revocation_list_this_update_timestamp_seconds", Help: "When the revocation list that has to be replaced first was made.", Value: float64(from.Unix()), Labels: of},
			metrics.Value{Name: "revocation_list_next_update_timestamp_seconds", Help: "When that revocation list expires.", Value: float64(until.Unix()), Labels: of})
	}
	return all
}

// deviceValues are those of the PKCS #11 tokens. If there are several, each has a label.
func (s *Service) deviceValues() (all []metrics.Value) {
	for _, st := range keys.StatsOf(s.Store) {
		of := tokenLabel(st.Token)
		all = append(all,
			metrics.Value{Name: "keystore_sessions", Help: "PKCS #11 sessions.", Value: float64(st.Open), Labels: append(label("state", "open"), of...)},
			metrics.Value{Name: "keystore_sessions", Help: "PKCS #11 sessions.", Value: float64(st.InUse), Labels: append(label("state", "in_use"), of...)},
			metrics.Value{Name: "keystore_objects", Help: "Session objects in the PKCS #11 token.", Value: float64(st.Objects), Labels: of},
			metrics.Value{Name: "keystore_opened_total", Help: "How often the sessions with the token were opened again.", Value: float64(st.Epoch), Counts: true, Labels: of},
		)
	}
	for _, t := range keys.Tokens(s.Store) {
		usable := 0.0
		if t.Usable {
			usable = 1
		}
		all = append(all,
			metrics.Value{Name: "keystore_token_usable", Help: "Whether one of several tokens that hold the same keys is used.", Value: usable, Labels: tokenLabel(t.Token)},
			metrics.Value{Name: "keystore_token_queue", Help: "Operations that are under way on one of several tokens.", Value: float64(t.Queue), Labels: tokenLabel(t.Token)},
		)
	}
	return all
}

// tokenLabel names one of several tokens.
func tokenLabel(token string) [][2]string {
	if token == "" {
		return nil
	}
	return label("token", token)
}

// buildVersion returns the version of this program, and the revision of its source.
func buildVersion() (version, revision string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	return info.Main.Version, revision
}
