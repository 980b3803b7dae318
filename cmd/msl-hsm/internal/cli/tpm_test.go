package cli

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/config"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// testingT finds the *testing.T of a script.
type testingT struct{}

// swtpm VAR [ROOTS] runs a TPM until the script ends, and keeps its URI in a
// variable. With a file of roots it has a certificate of its maker, which is
// added there. VARTOOLS names it for tpm2-tools. Where swtpm is missing the script is
// skipped.
func swtpm(ts *testscript.TestScript, _ bool, args []string) {
	t := ts.Value(testingT{}).(testing.TB)
	var uri string
	defer func() { ts.Setenv(args[0], uri); ts.Setenv(args[0]+"TOOLS", tpmtest.Tools(uri)) }()
	if len(args) == 1 {
		uri = tpmtest.Serve(t)
		return
	}
	uri, makers := tpmtest.ServeCertified(t)
	f, err := os.OpenFile(ts.MkAbs(args[1]), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	ts.Check(err)
	for _, c := range makers {
		_, err := f.Write(enroll.PEM("CERTIFICATE", c.Raw))
		ts.Check(err)
	}
	ts.Check(f.Close())
}

// clearTPM URI clears a TPM.
func clearTPM(ts *testscript.TestScript, _ bool, args []string) {
	tpmtest.ClearServed(ts.Value(testingT{}).(testing.TB), args[0])
}

// fillTPM URI makes keys persistent in a TPM, and NV indices, until there is no room for more.
func fillTPM(ts *testscript.TestScript, _ bool, args []string) {
	conn, err := net.Dial("unix", tpmtest.Socket(args[0]))
	ts.Check(err)
	defer conn.Close()
	chip := transport.FromReadWriter(conn)
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(chip)
	ts.Check(err)
	key := tpm2.NamedHandle{Handle: made.ObjectHandle, Name: made.Name}
	space := func(n tpm2.TPMHandle, size uint16) error {
		public := tpm2.TPMSNVPublic{NVIndex: 0x01800000 + n, NameAlg: tpm2.TPMAlgSHA256, DataSize: size, Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true}}
		_, err := tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(public)}.Execute(chip)
		return err
	}
	n := tpm2.TPMHandle(0)
	for _, fill := range []func() error{
		func() error {
			_, err := tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: &key, PersistentHandle: 0x81000100 + n}.Execute(chip)
			return err
		},
		func() error { return space(n, 2048) }, func() error { return space(n, 64) }, func() error { return space(n, 1) },
	} {
		for err = nil; err == nil; n++ {
			err = fill()
		}
		if !errors.Is(err, tpm2.TPMRCNVSpace) {
			ts.Fatalf("%v", err)
		}
	}
	_, err = tpm2.FlushContext{FlushHandle: made.ObjectHandle}.Execute(chip)
	ts.Check(err)
}

// measured URI FILE TEXT... has a TPM measure a start, of a kernel or whatever the texts say, in
// PCR 4, and writes its event log.
func measured(ts *testscript.TestScript, _ bool, args []string) {
	var events []tpmtest.BootEvent
	for _, text := range args[2:] {
		events = append(events, tpmtest.BootEvent{PCR: 4, Type: 0xd, Data: text}) // EV_IPL
	}
	tpmtest.MeasureServed(ts.Value(testingT{}).(testing.TB), args[0], events...)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), tpmtest.EventLog(events...), 0o644))
}

// stall before|after N URL VAR relays requests to a server, except the N-th, which is
// never answered: either the server does not get it, or its answer is lost. The file
// "stalled" appears at that moment.
func stall(ts *testscript.TestScript, _ bool, args []string) {
	at, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	var count atomic.Int64
	stalled, over := ts.MkAbs("stalled"), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := count.Add(1)
		request, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if n != at || args[0] == "after" {
			answer, err := http.Post(args[2]+r.URL.Path[1:], r.Header.Get("Content-Type"), bytes.NewReader(request))
			if err != nil {
				return
			}
			defer answer.Body.Close()
			if n != at {
				w.WriteHeader(answer.StatusCode)
				io.Copy(w, answer.Body)
				return
			}
			io.Copy(io.Discard, answer.Body)
		}
		os.WriteFile(stalled, nil, 0o600)
		select {
		case <-r.Context().Done():
		case <-over:
		}
	}))
	ts.Defer(func() { close(over); s.Close() })
	ts.Setenv(args[3], s.URL+"/")
}

// waitFor FILE waits until a file is there.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("%s does not come", args[0])
}

// flip FILE changes a bit in the middle of a file.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	text, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	text[len(text)/2] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), text, 0o600))
}

// found FILE PATTERN VAR keeps what a pattern, or its last group, finds in a
// variable.
func found(ts *testscript.TestScript, _ bool, args []string) {
	groups := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile(args[0]))
	if groups == nil {
		ts.Fatalf("%s has no %s", args[0], args[1])
	}
	ts.Setenv(args[2], groups[len(groups)-1])
}

// nextSecond waits for the next second: the times in master tokens are no finer.
func nextSecond(*testscript.TestScript, bool, []string) {
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
}

func TestSettledTPM(t *testing.T) {
	for uri, want := range map[string]string{
		"tpm:?state=device.keys":            "tpm:?state=/a%20b%26/device.keys",
		"tpm:?device=/dev/tpm0&state=x/y":   "tpm:?device=/dev/tpm0&state=/a%20b%26/x/y",
		"tpm:?state=/var/device.keys&srk=1": "tpm:?state=/var/device.keys&srk=1",
		"tpm:?state=%2Fvar%2Fdevice.keys":   "tpm:?state=%2Fvar%2Fdevice.keys",
		"tpm:?unix=/run/tpm":                "tpm:?unix=/run/tpm",
		"tpm:?state=":                       "tpm:?state=",
		"tpm:":                              "tpm:",
		"tpm:object=state=x?state=y&srk=1":  "tpm:object=state=x?state=/a%20b%26/y&srk=1",
	} {
		if got := config.SettledTPM("/a b&", uri); got != want {
			t.Errorf("%s: %s, want %s", uri, got, want)
		}
	}
}
