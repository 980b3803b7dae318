//go:build !noetcd

package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
	"github.com/msl-hsm/msl-hsm/internal/porttest"
	"github.com/msl-hsm/msl-hsm/internal/stretch"
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
	"github.com/msl-hsm/msl-hsm/msl/state"
	"github.com/msl-hsm/msl-hsm/msl/state/bolt"
)

const (
	siteServers  = 3
	siteUser     = "ada@example.com"
	sitePassword = "correct horse"
	// siteStaleness is how long a server relies on what it knows of revocations.
	siteStaleness = 2 * time.Second
)

// A chaosSite is three servers on one token, whose state is in three members of etcd, behind a
// balancer of TCP, and devices that send through it. Each server reaches each member by a
// link of its own, and the members are reached by each other by one link each.
type chaosSite struct {
	t        *testing.T
	dir      string
	program  string // msl-hsm
	service  string // URL
	members  []*etcdtest.Member
	peers    []*porttest.Link // to members, from others
	servers  []*siteServer
	balancer *porttest.Link
	ledger   *chaosLedger
	devices  []*device
	peer     msl.EntityScheme
	exchange msl.Offerer
	work     sync.WaitGroup // copies that are posted
	failed   atomic.Int64

	mu       sync.Mutex
	recorded [][]byte // messages that were answered
	room     int      // for recorded
	seen     int
	refused  map[msl.ResponseCode]int // copies
	poster   *http.Client
}

// newChaosSite starts everything, with devices of these names.
func newChaosSite(t *testing.T, program string, clocks []time.Duration, names []string) *chaosSite {
	t.Helper()
	s := newTokenSite(t, program)
	s.members = etcdtest.StartClusterBehind(t, siteServers, func(address string) string {
		s.peers = append(s.peers, porttest.NewLink(t, address))
		return s.peers[len(s.peers)-1].Addr().String()
	})
	s.config("commands.yaml", inEtcd(etcdtest.URLs(s.members)))
	for _, clock := range clocks {
		s.addServer(clock)
	}
	s.balance()
	s.register("first.db", names)
	s.mustRun("state", "import", "first.db", "--keep-tokens")
	for _, server := range s.servers {
		server.start()
	}
	return s
}

// newTokenSite returns a site with a token and the service, and no servers yet.
func newTokenSite(t *testing.T, program string) *chaosSite {
	t.Helper()
	if err := findSoftHSM(); err != nil {
		t.Skip(err) // TestScripts fails if it is required
	}
	s := &chaosSite{t: t, dir: t.TempDir(), program: program, ledger: newChaosLedger(siteStaleness), room: 100, refused: map[msl.ResponseCode]int{},
		poster: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{}}}
	t.Cleanup(s.poster.CloseIdleConnections)
	if err := madeToken.put(s.dir, makeServerToken); err != nil {
		t.Fatal(err)
	}
	service := httptest.NewServer(s.ledger)
	t.Cleanup(service.Close)
	s.service = service.URL
	t.Cleanup(s.work.Wait)
	return s
}

// balance puts the balancer before the servers.
func (s *chaosSite) balance() {
	var places []string
	for _, v := range s.servers {
		places = append(places, v.address)
	}
	s.balancer = porttest.NewLink(s.t, places...)
}

func inEtcd(urls []string) string {
	return fmt.Sprintf("{etcd: [%s], staleness: %v}", strings.Join(urls, ", "), siteStaleness)
}

// config writes a configuration.
func (s *chaosSite) config(name, state string) {
	write(s.t, s.dir, name, fmt.Sprintf(`
keystore: {softhsm: dev, pin: "file:dev/pin"}
server:
  identity: server
  key: msl-identity
  entity-schemes: [ECC]
  state: %s
  argon2: {time: 5, memory: 7168, threads: 1}
  renew-after: 5s
  lifetime: 10m
  user-renew-after: 5s
  limits: {errors-per-second: 1000000, errors-per-source: 1000000, connections-per-source: 1000}
  upstream: %s
`, state, s.service))
}

// register makes devices, and a state file with them and a user.
func (s *chaosSite) register(path string, names []string) {
	text, err := os.ReadFile(filepath.Join(s.dir, "server.pem"))
	if err != nil {
		s.t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		s.t.Fatal(err)
	}
	s.peer, s.exchange = deviceKeys(s.t, public)
	if err := os.RemoveAll(filepath.Join(s.dir, path)); err != nil { // a command made one
		s.t.Fatal(err)
	}
	file, err := bolt.OpenServer(filepath.Join(s.dir, path))
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	for _, name := range names {
		s.devices = append(s.devices, s.newDevice(name, registered(s.t, file, name)))
	}
	file.PasswordCost(stretch.Cost{Time: 5, Memory: 7168, Threads: 1})
	if err := file.AddUser(siteUser, []byte(sitePassword)); err != nil {
		s.t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.mustRun("state", "sign", "--state", path)
}

// registered makes a key of a device, and registers the device.
func registered(t *testing.T, file *bolt.Server, name string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := keystore.KeyID(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	if err := file.AddEntity(state.EntityRecord{Identity: name, Scheme: "ECC", KeyID: id, PublicKey: der}); err != nil {
		t.Fatal(err)
	}
	return key
}

// run runs a command beside the servers.
func (s *chaosSite) run(args ...string) (string, error) {
	c := exec.Command(s.program, append(args, "--config", "commands.yaml")...)
	c.Dir = s.dir
	out, err := c.CombinedOutput()
	return string(out), err
}

func (s *chaosSite) mustRun(args ...string) {
	s.t.Helper()
	if out, err := s.run(args...); err != nil {
		s.t.Fatalf("%v: %v: %s", args, err, out)
	}
}

// keep takes a sample of the messages that were answered: each is in it with the same
// probability.
func (s *chaosSite) keep(text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen++
	if len(s.recorded) < s.room {
		s.recorded = append(s.recorded, text)
	} else if i := int(time.Now().UnixNano() % int64(s.seen)); i < s.room {
		s.recorded[i] = text
	}
}

// taken stands for the response code of a message that was accepted.
const taken msl.ResponseCode = -1

// post sends a recorded message to a server, and returns the response code of the error
// it gets, 0 if it gets no answer.
func (s *chaosSite) post(address string, text []byte) msl.ResponseCode {
	answer, err := s.poster.Post("http://"+address, "application/x-msl+json", bytes.NewReader(text))
	if err != nil {
		return 0
	}
	defer answer.Body.Close()
	var message struct{ ErrorData, HeaderData []byte }
	var header struct{ ErrorCode msl.ResponseCode }
	_ = json.NewDecoder(answer.Body).Decode(&message)
	_ = json.Unmarshal(message.ErrorData, &header)
	if len(message.HeaderData) > 0 {
		header.ErrorCode = taken
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[header.ErrorCode]++
	return header.ErrorCode
}

// replay is post for a message that was answered before, and must not be again.
func (s *chaosSite) replay(v *siteServer, text []byte) msl.ResponseCode {
	code := s.post(v.address, text)
	if code == taken {
		s.t.Errorf("%s answered a copy", v.name)
	}
	return code
}
