// Package etcdtest runs etcd for tests: members on the loopback interface, which can be
// stopped, continued, killed and restarted.
//
// Without etcd the test is skipped, or fails if MSL_TEST_REQUIRE names etcd.
package etcdtest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/internal/porttest"
)

// A Member is a member of a cluster, usually the only one.
type Member struct {
	// URL is where clients reach it.
	URL string

	args    []string
	log     string
	command *exec.Cmd
}

// Start runs a member in a temporary directory until the test ends. Further arguments are
// those of etcd; with --cert-file among them, the URL is https.
func Start(t testing.TB, args ...string) *Member {
	t.Helper()
	return StartDurable(t, append(args, "--unsafe-no-fsync")...)
}

// StartDurable is Start for tests that kill the member: it syncs its files, and keeps what
// it has acknowledged.
func StartDurable(t testing.TB, args ...string) *Member {
	t.Helper()
	need(t)
	dir := t.TempDir()
	scheme := "http"
	if slices.Contains(args, "--cert-file") {
		scheme = "https"
	}
	peer := "http://" + porttest.Address(t)
	m := &Member{URL: scheme + "://" + porttest.Address(t), log: filepath.Join(dir, "log")}
	m.args = append([]string{
		"--name", "test", "--data-dir", filepath.Join(dir, "data"), "--log-level", "error",
		"--listen-client-urls", m.URL, "--advertise-client-urls", m.URL,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "test=" + peer,
	}, args...)
	t.Cleanup(m.Kill)
	m.Restart(t)
	return m
}

// StartCluster runs several members, which sync their files, until the test ends.
func StartCluster(t testing.TB, size int) []*Member {
	t.Helper()
	return StartClusterBehind(t, size, func(address string) string { return address })
}

// StartClusterBehind is StartCluster with something in front of each member, such as a
// proxy that a test disturbs: front returns the address through which other members reach
// the one at an address.
func StartClusterBehind(t testing.TB, size int, front func(address string) string) (all []*Member) {
	t.Helper()
	need(t)
	var cluster, peers, fronts []string
	for i := range size {
		address := porttest.Address(t)
		peers = append(peers, "http://"+address)
		fronts = append(fronts, "http://"+front(address))
		cluster = append(cluster, fmt.Sprintf("m%d=%s", i, fronts[i]))
	}
	for i, peer := range peers {
		dir := t.TempDir()
		m := &Member{URL: "http://" + porttest.Address(t), log: filepath.Join(dir, "log")}
		m.args = []string{
			"--name", fmt.Sprint("m", i), "--data-dir", filepath.Join(dir, "data"), "--log-level", "error",
			"--listen-client-urls", m.URL, "--advertise-client-urls", m.URL,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", fronts[i], "--initial-cluster", strings.Join(cluster, ","),
		}
		t.Cleanup(m.Kill)
		m.start(t)
		all = append(all, m)
	}
	for _, m := range all {
		m.ready(t)
	}
	return all
}

// Replace removes a member that was killed from its cluster, by another one, and adds a new one
// with an empty directory in its place, as after the loss of a disk.
func (m *Member) Replace(t testing.TB, by *Member) {
	t.Helper()
	var at struct {
		Members []struct {
			ID       uint64
			Name     string
			PeerURLs []string
		}
	}
	if err := json.Unmarshal([]byte(by.Control(t, "member", "list", "--write-out", "json")), &at); err != nil {
		t.Fatal(err)
	}
	for _, member := range at.Members {
		if member.Name != m.arg("--name") {
			continue
		}
		by.Control(t, "member", "remove", strconv.FormatUint(member.ID, 16))
		by.add(t, member.Name, strings.Join(member.PeerURLs, ","))
	}
	m.set("--data-dir", filepath.Join(t.TempDir(), "data"))
	m.args = append(m.args, "--initial-cluster-state", "existing")
	m.Restart(t)
}

// add adds a member to the cluster, once etcd is content with how long the others have been there.
func (m *Member) add(t testing.TB, name, peers string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		out, err := m.control("", "member", "add", name, "--peer-urls", peers)
		if err == nil {
			return
		}
		if !strings.Contains(out, "unhealthy cluster") || time.Now().After(end) {
			t.Fatalf("%v\n%s", err, out)
		}
	}
}

func (m *Member) arg(name string) string { return m.args[slices.Index(m.args, name)+1] }

func (m *Member) set(name, value string) { m.args[slices.Index(m.args, name)+1] = value }

// URLs are where clients reach the members.
func URLs(all []*Member) (urls []string) {
	for _, m := range all {
		urls = append(urls, m.URL)
	}
	return urls
}

func need(t testing.TB) {
	t.Helper()
	_, err := exec.LookPath("etcd")
	_, errControl := exec.LookPath("etcdctl")
	err = cmp.Or(err, errControl)
	switch {
	case err == nil:
	case slices.Contains(strings.Split(os.Getenv("MSL_TEST_REQUIRE"), ","), "etcd"):
		t.Fatalf("%v: install etcd-server and etcd-client", err)
	default:
		t.Skip(err)
	}
}

// Restart starts the member with its earlier data, and waits until it accepts
// connections.
func (m *Member) Restart(t testing.TB) {
	t.Helper()
	m.start(t)
	m.ready(t)
}

func (m *Member) ready(t testing.TB) {
	t.Helper()
	if err := m.wait(t.Context()); err != nil {
		said, _ := os.ReadFile(m.log)
		t.Fatalf("%v\n%s", err, said)
	}
}

func (m *Member) start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	m.command = exec.Command("etcd", m.args...)
	m.command.Stdout, m.command.Stderr = log, log
	if err := m.command.Start(); err != nil {
		t.Fatal(err)
	}
}

// wait returns when the member has elected itself, and begins to listen.
func (m *Member) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	_, address, _ := strings.Cut(m.URL, "://")
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		if conn, err := net.Dial("tcp", address); err == nil {
			return conn.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("etcd does not listen: %w", ctx.Err())
		}
	}
}

// Stop freezes the member (SIGSTOP): it accepts connections but does not answer.
func (m *Member) Stop() {
	if m.command.Process.Signal(syscall.SIGSTOP) == nil {
		_, _ = syscall.Wait4(m.command.Process.Pid, nil, syscall.WUNTRACED, nil) // until all of it has stopped
	}
}

// Continue ends Stop.
func (m *Member) Continue() { _ = m.command.Process.Signal(syscall.SIGCONT) }

// Kill ends the member without a chance to finish anything (SIGKILL).
func (m *Member) Kill() {
	if m.command != nil && m.command.Process != nil {
		_ = m.command.Process.Kill()
		_ = m.command.Wait()
	}
}

// Save writes a snapshot of the member to a file.
func (m *Member) Save(t testing.TB) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "snapshot")
	m.Control(t, "snapshot", "save", file)
	return file
}

// Restore makes the only member of a cluster, which was killed, begin with a snapshot.
func (m *Member) Restore(t testing.TB, file string) {
	t.Helper()
	args := []string{"snapshot", "restore", file}
	for i, a := range m.args {
		switch a {
		case "--data-dir":
			m.args[i+1] = filepath.Join(t.TempDir(), "data")
			fallthrough
		case "--name", "--initial-cluster", "--initial-advertise-peer-urls":
			args = append(args, a, m.args[i+1])
		}
	}
	m.Control(t, args...)
	m.Restart(t)
}

// Control runs etcdctl with the member as its endpoint and returns what it prints.
func (m *Member) Control(t testing.TB, args ...string) string {
	t.Helper()
	out, err := m.control("", args...)
	if err != nil {
		t.Fatalf("etcdctl %v: %v\n%s", args, err, out)
	}
	return out
}

func (m *Member) control(input string, args ...string) (string, error) {
	c := exec.Command("etcdctl", append([]string{"--endpoints", m.URL, "--command-timeout", "1m"}, args...)...)
	c.Env, c.Stdin = append(os.Environ(), "ETCDCTL_API=3"), strings.NewReader(input)
	out, err := c.CombinedOutput()
	return string(out), err
}

const filler = "filler"

// Fill puts records into a cluster until its database is full. Its --quota-backend-bytes must
// be small.
func (m *Member) Fill(t testing.TB) {
	t.Helper()
	for range 100 {
		out, err := m.control(strings.Repeat("x", 1<<20), "put", filler)
		if strings.Contains(out, "database space exceeded") {
			return
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	t.Fatal("the database of etcd does not get full")
}

// Clear makes the room again that Fill took, as an operator would.
func (m *Member) Clear(t testing.TB) {
	t.Helper()
	var at struct{ Header struct{ Revision int64 } }
	if err := json.Unmarshal([]byte(m.Control(t, "del", filler, "--write-out", "json")), &at); err != nil {
		t.Fatal(err)
	}
	m.Control(t, "compact", fmt.Sprint(at.Header.Revision))
	m.Control(t, "defrag")
	m.Control(t, "alarm", "disarm")
}
