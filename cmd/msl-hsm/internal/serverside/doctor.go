package serverside

import (
	"context"
	"crypto"
	"crypto/fips140"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/admin"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/internal/lockedmem"
	"github.com/msl-hsm/msl-hsm/keystore"
)

// Examine checks everything that a server needs by actually using it, and returns what it
// found: one fault does not stop the other checks. It changes nothing. If a server is
// running, it asks that server about what it has open.
func Examine(ctx context.Context, c *config.Config) []Check {
	d := &doctor{c: c}
	d.clock(time.Now())
	d.fips(keys.FIPSOf())
	d.openFiles()
	d.lockedMemory()
	d.files()
	d.logs()
	if c.Server.Admin.Token != "" {
		_, err := tokenHash(c)
		d.judge("server.admin.token", err, "it can be read")
	}
	running, errRunning := admin.LookFor(c)
	store, err := keys.Open(d.c)
	if running != nil {
		defer running.Close()
	}
	if errRunning == nil {
		d.state(running, store, err)
	} else if running != nil { // it would not answer anything else, either
		d.say("running server", Failure, "%s", exit.OneLine(errRunning))
	} else {
		d.say("server", Warning, "%s", exit.OneLine(errRunning))
		d.state(nil, store, err)
	}
	d.ports(running != nil)
	d.store(ctx, store, err)
	d.upstreams(ctx)
	return d.found
}

// clock checks that the time is later than this program. Tokens and certificates depend
// on it.
func (d *doctor) clock(now time.Time) {
	if now.Year() < 2024 {
		d.say("clock", Failure, "it says %s: set it, and let a time service keep it correct", now.Format(time.DateOnly))
		return
	}
	if synchronized, known := clockSynchronized(); known && !synchronized {
		d.say("clock", Warning, "it says %s, and no time service reports that it is synchronized", now.UTC().Format(time.DateTime))
		return
	}
	d.say("clock", OK, "it says %s", now.UTC().Format(time.DateTime))
}

// fips reports the mode. If it was requested, a module that is not validated deserves a
// warning.
func (d *doctor) fips(f keys.FIPS) {
	verdict, next := OK, ""
	if f.Mode != "off" && !f.Frozen() {
		verdict, next = Warning, ": no certificate covers this module; build with GOFIPS140=certified, and see docs/security.md"
	}
	d.say("FIPS 140-3", verdict, "mode %s%s", f, next)
}

func (d *doctor) state(running *admin.Running, store keys.Store, errStore error) {
	if running != nil {
		var now Readiness
		if err := running.Status(&now); err != nil {
			d.say("running server", Failure, "%s", exit.OneLine(err))
			return
		}
		for _, check := range now.Checks {
			d.say("running server: "+check.Name, check.Verdict, "%s", check.Detail)
		}
		if !d.c.Server.State.Shared() {
			return
		}
	}
	s, err := admin.OpenStateBy(d.c, store, errStore)
	if errStore != nil && errors.Is(err, errStore) {
		d.say("state", Warning, "it was not read, because the key store, which has its key, does not open")
		return
	}
	if err != nil {
		d.say("state", Failure, "%s", exit.OneLine(err))
		return
	}
	defer s.Close()
	d.members(s)
	if ahead, err := s.Ahead(context.Background()); err == nil && ahead > 0 {
		d.say("clocks of servers", Warning, "that of a server of this state is %v ahead of the one here: correct the one that is wrong, and let a time service keep it", ahead.Round(time.Second))
	}
	if running != nil {
		return // it was asked about everything else
	}
	all, err := s.Check()
	if err == nil {
		var used admin.Used
		if used, err = admin.UsedKeys(d.c, s.Server); err == nil {
			d.used = &used
		}
	}
	if !d.judge("state", err, "no damage; %s and %s registered", exit.Count(all.Entities, "entity", "entities"), exit.Count(all.Users, "user", "users")) {
		return
	}
	d.enrollments(s)
	registered, err := s.Entities()
	if warning := sealedApart(d.c, registered); warning != "" {
		d.say("pre-shared keys", Warning, "%s", warning)
	} else if err != nil {
		d.say("pre-shared keys", Failure, "%s", exit.OneLine(err))
	}
	d.authenticity(s)
}

// enrollments reads the records of devices, if they enroll here.
func (d *doctor) enrollments(s *admin.State) {
	if !d.c.Server.Enrollment.On() {
		return
	}
	devices := 0
	found, err := admin.CheckEnrollments(d.c, s)
	for _, n := range found {
		devices += n
	}
	d.judge(enrollmentsName, err, "no damage; records of %s", exit.Count(devices, "device", "devices"))
}

// authenticity tells who could change the state undetected. That the records of devices cannot
// be read was told before.
func (d *doctor) authenticity(s *admin.State) {
	doubts, err := s.Doubts(d.c)
	for _, doubt := range doubts {
		d.say("authenticity", Warning, "%s", doubt)
	}
	if err == nil && len(doubts) == 0 {
		d.say("authenticity", OK, "nobody without the server's keys changed the state")
	}
}

// members reports on each etcd member: as long as most of them answer, nothing else does.
func (d *doctor) members(s *admin.State) {
	if s.Members == nil {
		return
	}
	for _, m := range s.Members(context.Background()) {
		if m.Err != nil {
			d.say("etcd", Warning, "%s: %s", m.Endpoint, exit.OneLine(m.Err))
			continue
		}
		d.say("etcd", OK, "%s answers, version %s", m.Endpoint, m.Version)
	}
}

// ports tries the addresses, unless a server is listening there.
func (d *doctor) ports(served bool) {
	if served {
		return
	}
	s := &d.c.Server
	for _, l := range []struct{ setting, address string }{
		{"server.listen", s.Listen}, {"server.stream.listen", s.Stream.Listen}, {"server.peer.listen", s.Peer.Listen},
		{"server.push.listen", s.Push.Listen}, {"server.admin.listen", s.Admin.Listen},
	} {
		if l.address != "" {
			d.port(l.setting, l.address)
		}
	}
	if path, ok := config.CutUnix(s.Push.From); ok {
		if verdict, text := trySocket(path); verdict != OK {
			d.say("port", verdict, "%s", text)
		}
	}
}

// trySocket tries where the socket of server.push.from is made. The directory may be that of a service,
// which is there only while it runs.
func trySocket(path string) (Verdict, string) {
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != os.ModeSocket {
		return Failure, fmt.Sprintf("%s exists and is not a socket: remove it, or choose another path in server.push.from", path)
	}
	dir := filepath.Dir(path)
	err := unix.Access(dir+"/", unix.W_OK)
	if errors.Is(err, unix.ENOENT) && strings.HasPrefix(dir, "/run/") {
		return Warning, fmt.Sprintf("%s, for server.push.from, is not there: systemd makes it for a service with RuntimeDirectory=%s; without systemd, make it", dir, strings.TrimPrefix(dir, "/run/"))
	}
	if err != nil {
		return Failure, "no socket can be made: " + exit.OneLine(unwritable("server.push.from", dir, err))
	}
	return OK, ""
}

func (d *doctor) port(setting, address string) {
	listener, err := net.Listen("tcp", address)
	if err == nil {
		err = listener.Close()
	} else if why := unasked(&d.c.Server.State); errors.Is(err, unix.EADDRINUSE) && why != "" {
		d.say("port", Warning, "%s of %s is in use: by this server, if it is running%s", address, setting, why)
		return
	} else {
		err = fmt.Errorf("%w: stop what listens there, or choose another address in %s", err, setting)
	}
	d.judge("port", err, "%s can be used for %s", address, setting)
}

// unasked says why a server with that state may be running although it was not found, or "".
func unasked(s *config.State) string {
	if s.Shared() {
		return "; to be sure, set server.admin.socket and restart it"
	}
	if path := s.Path(); path != "" {
		if err := admin.MayRun(path); err != nil {
			return ": " + exit.OneLine(err)
		}
	}
	return ""
}

// store opens the key store, which tests the module, and continues with what it can open.
func (d *doctor) store(ctx context.Context, store keys.Store, err error) {
	if !d.judge("key store", err, "it opens, accepts the PIN, and protects keys as required") {
		return
	}
	defer func() { d.close("key store", store.Close()) }()
	d.found = append(d.found, checkTokens(store)...)
	d.sessionKeys()
	d.keys(store)
	d.pair(store)
	d.trusted(store)
	d.audit(store)
	r, err := Rehearse(d.c, store)
	if !d.judge("server", err, "its keys, schemes and certificates fit together") {
		return
	}
	defer func() { d.close("server", r.Close()) }()
	d.found = append(d.found, r.checkCertificates(time.Now())...)
	d.found = append(d.found, checkStaples(r.stapled)...)
	d.found = append(d.found, checkRevocations(r.revoking)...)
	for _, name := range r.Exchanges(d.c) {
		began := time.Now()
		err := r.Try(ctx, d.c, name)
		if fips140.Enforced() && errors.Is(err, errors.ErrUnsupported) {
			d.say("key exchange "+name, Warning, "not tried as a device would, because the device's keys would be in this process: %s", exit.OneLine(err))
			continue
		}
		d.judge("key exchange "+name, err, "a device gets keys and returns with its token: %v", time.Since(began).Round(time.Millisecond))
	}
}

func (d *doctor) close(name string, err error) {
	if err != nil {
		d.say(name, Failure, "it does not close: %s", exit.OneLine(err))
	}
}

// keys judges the evidence of each key. Keys that this server does not use may be what
// other software requires.
func (d *doctor) keys(store keystore.Admin) {
	all, err := store.List()
	if err != nil {
		d.say("keys", Failure, "%s", exit.OneLine(err))
		return
	}
	if len(all) == 0 { // a module that cannot read its files may also report this
		d.say("keys", Failure, "the key store shows none: make them with msl-hsm key create --set server, or, if it had some, look at its files, at who may read them, and at the limit of open files (ulimit -n)")
		return
	}
	weak := 0
	var accepted weaknesses
	for _, k := range all {
		name, refused := exit.Printable(k.Label), accepted.add(d.c, k)
		switch {
		case len(refused) == 0:
			continue
		case !keys.Uses(d.c, k.Label):
			d.say("keys", Warning, "%s, which this server does not use: %s", name, strings.Join(k.Weaknesses, ", "))
		case len(k.Untold) > 0:
			d.say("keys", Failure, "%s version %d: %s: do not destroy it for that: ask the vendor of the module, or accept it in keystore.allow-weak", name, k.Version, strings.Join(refused, ", "))
		default:
			d.say("keys", Failure, "%s version %d: %s: destroy it with msl-hsm key destroy %s --version %d --yes, or accept it in keystore.allow-weak", name, k.Version, strings.Join(refused, ", "), exit.Quoted(name), k.Version)
		}
		weak++
	}
	if accepted.keys > 0 {
		d.say("keys", Warning, "%s with weaknesses that keystore.allow-weak accepts: %s", exit.Count(accepted.keys, "key", "keys"), strings.Join(accepted.names, ", "))
	} else if weak == 0 {
		d.say("keys", OK, "%s that cannot be read and cannot leave the device", exit.Count(len(all), "key", "keys"))
	}
}

// pair checks that the state was used with these keys. A running server has done that.
func (d *doctor) pair(store keystore.Store) {
	if d.used == nil {
		return
	}
	warning, err := admin.ComparePair(d.c, *d.used, store)
	if err == nil && warning != "" {
		d.say(pairName, Warning, "%s", warning)
		return
	}
	d.judge(pairName, err, "they belong together")
}

// sessionKeys reports session keys that are not in the token, and whether their memory
// may be written to swap.
func (d *doctor) sessionKeys() {
	if d.c.Keystore.SessionKeys != config.SessionsInMemory {
		return
	}
	if err := lockedmem.LockAll(); err != nil {
		d.say("session keys", Warning, "they are in the server's memory and not in the token, as keystore.session-keys says, and that memory may be written to swap space: %s; allow the server to lock its memory (LimitMEMLOCK=infinity in systemd, ulimit -l unlimited), or use no swap space, or encrypted swap space", exit.OneLine(err))
		return
	}
	d.say("session keys", OK, "they are in the server's locked memory and not in the token, as keystore.session-keys says; the keys that seal them are in the token")
}

// trusted judges whether sealed keys can be moved to newer sealing keys.
func (d *doctor) trusted(store keystore.Admin) {
	if !d.c.Keystore.TrustedWrap {
		return
	}
	newest, err := keys.Newest(store)
	if err != nil {
		return // as reported for all keys
	}
	for _, role := range []keystore.Role{keystore.RoleSealSession, keystore.RoleSealWrapping} {
		k := newest[role.Label(d.c.Keystore.Prefix)]
		name := fmt.Sprintf("%s version %d", role.Label(d.c.Keystore.Prefix), k.Version)
		switch {
		case k.Version == 0: // reported where the server is assembled
		case !k.Reseals:
			d.say("trusted wrapping", Warning, "what %s sealed cannot be sealed again: it was made before keystore.trusted-wrapping was set; change to a new version with msl-hsm key rotate --so-pin SOURCE", name)
		case !k.Trusted:
			d.say("trusted wrapping", Warning, "%s is not trusted, so msl-hsm key rewrap moves nothing to it: mark it with msl-hsm key trust, or make a trusted one with msl-hsm key rotate --so-pin SOURCE", name)
		default:
			d.say("trusted wrapping", OK, "%s is trusted, and what it seals can be sealed again by the next", name)
		}
	}
}

// audit signs with the key of the audit log, if one is configured.
func (d *doctor) audit(store keystore.Store) {
	if d.c.Server.Audit.File == "" {
		return
	}
	signer, err := keys.AuditKey(d.c, store)
	if err == nil {
		hash := sha256.Sum256([]byte("msl-hsm doctor"))
		_, err = signer.Sign(rand.Reader, hash[:], crypto.SHA256)
	}
	d.judge(auditName, err, "its key signs")
}

// upstreams connects to each place of the service behind the gateway.
func (d *doctor) upstreams(ctx context.Context) {
	for _, t := range d.c.Server.Upstream.URL {
		network, address := "tcp", t.Socket
		if t.Socket != "" {
			network = "unix"
		} else {
			address = t.URL.Host
			if t.URL.Port() == "" {
				address = net.JoinHostPort(t.URL.Hostname(), map[string]string{"http": "80", "https": "443"}[t.URL.Scheme])
			}
		}
		conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, network, address)
		if err != nil {
			d.say("upstream", Warning, "%s: %s: start the service, or correct server.upstream", t, err)
			continue
		}
		conn.Close()
		d.say("upstream", OK, "%s takes connections", t)
	}
}
