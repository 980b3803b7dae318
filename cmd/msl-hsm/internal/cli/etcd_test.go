package cli

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/msl-hsm/msl-hsm/internal/kv/etcdkv/etcdtest"
)

// A startedEtcd finds the member of a script.
type startedEtcd struct{}

// startEtcd VAR starts etcd, and keeps its URL in a variable. With arguments of etcd, those
// that name files are relative to the script.
func startEtcd(ts *testscript.TestScript, _ bool, args []string) {
	t := ts.Value(testingT{}).(testing.TB)
	for i, a := range args {
		if _, err := os.Stat(ts.MkAbs(a)); err == nil {
			args[i] = ts.MkAbs(a)
		}
	}
	m := etcdtest.StartDurable(t, args[1:]...)
	ts.Setenv(args[0], m.URL)
	etcds(ts)[args[0]] = m
}

// etcds returns the members of a script by their variables.
func etcds(ts *testscript.TestScript) map[string]*etcdtest.Member {
	return ts.Value(startedEtcd{}).(map[string]*etcdtest.Member)
}

// killEtcd VAR ends etcd, and restartEtcd VAR starts it again.
func killEtcd(ts *testscript.TestScript, _ bool, args []string) { etcds(ts)[args[0]].Kill() }

func restartEtcd(ts *testscript.TestScript, _ bool, args []string) {
	etcds(ts)[args[0]].Restart(ts.Value(testingT{}).(testing.TB))
}

// controlEtcd VAR ARGS… runs etcdctl.
func controlEtcd(ts *testscript.TestScript, _ bool, args []string) {
	out := etcds(ts)[args[0]].Control(ts.Value(testingT{}).(testing.TB), args[1:]...)
	_, err := io.WriteString(ts.Stdout(), out)
	ts.Check(err)
}

// resend URL FILE posts a recorded message, and prints the answer.
func resend(ts *testscript.TestScript, _ bool, args []string) {
	text, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	answer, err := http.Post(args[0], "application/x-msl+json", bytes.NewReader(text))
	ts.Check(err)
	defer answer.Body.Close()
	_, err = io.Copy(ts.Stdout(), answer.Body)
	ts.Check(err)
}

// within DURATION COMMAND… repeats a command until it succeeds, or with a ! before it until
// it fails. One that begins later than that must do so at once.
func within(ts *testscript.TestScript, neg bool, args []string) {
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	for end := time.Now().Add(limit); ; {
		began := time.Now()
		if err := ts.Exec(args[1], args[2:]...); (err == nil) != neg {
			return
		}
		if began.After(end) {
			ts.Fatalf("not within %v", limit)
		}
	}
}

// balanced VAR URL… passes each request to the next of several servers, and keeps its own
// URL, with a slash, in a variable.
func balanced(ts *testscript.TestScript, _ bool, args []string) {
	var turn atomic.Int64
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		to, err := url.Parse(args[1+int(turn.Add(1))%(len(args)-1)])
		ts.Check(err)
		r.SetURL(to)
	}}
	s := httptest.NewServer(proxy)
	ts.Defer(s.Close)
	ts.Setenv(args[0], s.URL+"/")
}
