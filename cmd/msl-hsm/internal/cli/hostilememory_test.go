package cli

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	mathbits "math/bits"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/keys"
	"github.com/msl-hsm/msl-hsm/msl/entityauth"
)

// A hostile is what an attacker of a server knows: the keys of a device, or nothing.
type hostile struct {
	address string
	keys    *entityauth.PSKFile // of device "bad"
	bombs   map[string][]byte
}

type jsonObject = map[string]any

func encoded(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// seal makes an object of data and its signature, with keys or without.
func protectedBy(k *entityauth.PSKFile, name string, inside any) jsonObject {
	data := encoded(inside)
	if k == nil {
		return jsonObject{name: data, "signature": []byte{}}
	}
	block, err := aes.NewCipher(k.Encryption)
	if err != nil {
		panic(err)
	}
	iv := make([]byte, 16)
	rand.Read(iv)
	pad := 16 - len(data)%16
	data = append(data, bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)
	data = encoded(jsonObject{"keyid": k.Identity, "iv": iv, "ciphertext": data, "sha256": "AA=="})
	mac := hmac.New(sha256.New, k.MAC)
	mac.Write(data)
	return jsonObject{name: data, "signature": mac.Sum(nil)}
}

// pskMessage is a whole message, as "bad" or as "nobody".
func pskMessage(k *entityauth.PSKFile, header jsonObject, chunk jsonObject) []byte {
	h := jsonObject{"messageid": 1, "renewable": false}
	maps.Copy(h, header)
	outer := protectedBy(k, "headerdata", h)
	outer["entityauthdata"] = jsonObject{"scheme": "NONE", "authdata": jsonObject{"identity": "nobody"}}
	if k != nil {
		outer["entityauthdata"] = jsonObject{"scheme": "PSK", "authdata": jsonObject{"identity": k.Identity}}
	}
	c := jsonObject{"sequencenumber": 1, "messageid": 1, "endofmsg": true}
	maps.Copy(c, chunk)
	return append(encoded(outer), encoded(protectedBy(k, "payload", c))...)
}

// start begins a request of that many bytes on its own connection, sends the given part of
// it, and then nothing for a while.
func (h *hostile) start(ctx context.Context, length int, body []byte, more string) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", h.address)
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s", length, more)
	if _, err := c.Write(body); err == nil {
		io.Copy(io.Discard, c)
	}
}

// slowly is start with a request that never ends.
func (h *hostile) slowly(ctx context.Context, body []byte, more string) {
	h.start(ctx, 60<<20, body, more)
}

// whole sends a message, and reads the answer.
func (h *hostile) whole(ctx context.Context, body []byte) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+h.address+"/", bytes.NewReader(body))
	if err != nil {
		return
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if answer, err := client.Do(request); err == nil {
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
}

// gzipBomb grows 190 times, to 40 MiB: more would be refused for that.
func gzipBomb() []byte {
	data := make([]byte, 40<<20)
	rand.Read(data[:len(data)/195])
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(data)
	w.Close()
	return out.Bytes()
}

// lzwBomb is the same in MSL's own format, to 22 MiB: entries of growing length, and
// then the longest one again and again.
func lzwBomb() (out []byte) {
	bits, n := uint64(0), 0
	for k := range 60000 {
		code := uint64(0)
		if k > 0 {
			code = uint64(min(255+k, 255+370))
		}
		width := mathbits.Len(uint(255 + k))
		bits, n = bits<<width|code, n+width
		for ; n >= 8; n -= 8 {
			out = append(out, byte(bits>>(n-8)))
		}
	}
	return append(out, byte(bits<<(8-n)))
}

// attacks are the attacks on the server, each by many clients at once.
func (h *hostile) attacks() map[string]func(context.Context, int) {
	wantsKeys := jsonObject{"renewable": true, "keyrequestdata": []any{jsonObject{"scheme": "SYMMETRIC_WRAPPED", "keydata": jsonObject{"keyid": "PSK"}}}}
	var headers strings.Builder
	for i := range 1400 {
		fmt.Fprintf(&headers, "a%x:\r\n", i)
	}
	large := bytes.Repeat([]byte("x"), 1<<20)
	escaped := bytes.Repeat([]byte(`\u0041 `), 1<<20)
	attacks := map[string]func(context.Context, int){
		"nothing":           func(ctx context.Context, _ int) { h.slowly(ctx, nil, "") },
		"many HTTP headers": func(ctx context.Context, _ int) { h.slowly(ctx, nil, headers.String()) },
		"a slow header": func(ctx context.Context, _ int) {
			h.slowly(ctx, append([]byte(`{"x":"`), large[:1<<20-100]...), "\r\n")
		},
		"a header of escapes": func(ctx context.Context, _ int) {
			h.slowly(ctx, append([]byte(`{"headerdata":"`), escaped[:1<<20-100]...), "\r\n")
		},
		"an endless header": func(ctx context.Context, _ int) {
			h.slowly(ctx, append([]byte(`{"x":"`), bytes.Repeat(large, 8)...), "\r\n")
		},
		"half a chunk": func(ctx context.Context, n int) {
			message := pskMessage([]*entityauth.PSKFile{nil, h.keys}[n%2], nil, jsonObject{"data": large})
			h.slowly(ctx, message[:len(message)-10], "\r\n")
		},
		"a chunk of escapes": func(ctx context.Context, n int) {
			head := pskMessage([]*entityauth.PSKFile{nil, h.keys}[n%2], nil, nil)
			head = head[:bytes.Index(head, []byte("}{"))+1]
			h.whole(ctx, fmt.Appendf(head, `{"payload":"%s","signature":""}`, escaped[:3<<20]))
		},
		"wrong passwords": func(ctx context.Context, n int) {
			user := jsonObject{"userauthdata": jsonObject{"scheme": "EMAIL_PASSWORD", "authdata": jsonObject{"email": "ada@example.com", "password": fmt.Sprint(n)}}}
			h.whole(ctx, pskMessage(h.keys, user, jsonObject{"data": []byte("x")}))
		},
		"answers that nobody reads": func(ctx context.Context, _ int) {
			body := pskMessage(h.keys, wantsKeys, jsonObject{"data": large})
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", h.address)
			if err != nil {
				return
			}
			defer c.Close()
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nMsl-Duplex: full\r\nContent-Length: %d\r\n\r\n", len(body))
			c.Write(body)
			<-ctx.Done()
		},
	}
	for algorithm, bomb := range h.bombs {
		chunk := jsonObject{"compressionalgo": algorithm, "data": bomb}
		token := protectedBy((&entityauth.PSKFile{Identity: "x", Encryption: h.keys.Encryption, MAC: h.keys.MAC}), "tokendata", nil)
		token["tokendata"] = encoded(jsonObject{"name": "t", "encrypted": false, "compressionalgo": algorithm, "servicedata": bomb[:len(bomb)/2]})
		for who, keys := range map[string]*entityauth.PSKFile{"nobody": nil, "a device": h.keys} {
			attacks[algorithm+" of "+who] = func(ctx context.Context, _ int) { h.whole(ctx, pskMessage(keys, nil, chunk)) }
			attacks[algorithm+" with keys, of "+who] = func(ctx context.Context, _ int) { h.whole(ctx, pskMessage(keys, wantsKeys, chunk)) }
			attacks[algorithm+" in a token, of "+who] = func(ctx context.Context, _ int) {
				h.whole(ctx, pskMessage(keys, jsonObject{"servicetokens": []any{token}}, nil))
			}
		}
	}
	return attacks
}

// A target is a server in a process of its own.
type target struct {
	*child
	dir string
	url string
}

func newTarget(t *testing.T, limits string) *target {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, "passphrase", "for the keys\n")
	write(t, dir, "password", "correct horse\n")
	write(t, dir, "server.yaml", "keystore: {uri: \"soft:keys\", pin: \"file:passphrase\"}\nserver: {state: server.db, listen: \"127.0.0.1:0\", user-schemes: [EMAIL_PASSWORD], limits: {"+limits+"}}\n")
	command := func(args ...string) []byte {
		c := exec.Command("msl-hsm", append(args, "--config", "server.yaml")...)
		c.Dir = dir
		out, err := c.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out
	}
	command("key", "create", "--set", "server")
	write(t, dir, "server.pem", string(command("key", "show", "msl-identity", "--public")))
	command("entity", "add", "good", "--generate-psk", "good.psk")
	command("entity", "add", "bad", "--generate-psk", "bad.psk")
	command("entity", "add", "nobody", "--none")
	command("user", "add", "ada@example.com", "--password-source", "file:password")
	s := &target{child: launch(t, dir, "serve", "--config", "server.yaml", "--ready-file", "ready"), dir: dir}
	await(t, "the server", func() bool {
		text, err := os.ReadFile(filepath.Join(dir, "ready"))
		s.url = strings.TrimSpace(string(text))
		return err == nil && s.url != ""
	})
	return s
}

// peak is the most memory that the server ever had, in bytes (proc_pid_status(5)).
func (s *target) peak() int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Process.Pid))
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if err != nil || found == nil {
		s.t.Skipf("the memory of a process cannot be seen here: %v", err)
	}
	n, _ := strconv.ParseInt(string(found[1]), 10, 64)
	return n << 10
}

// promised is the worst case that the server printed at its start. It has ended.
func (s *target) promised() int64 {
	found := regexp.MustCompile(`"worst_case":"(\d+) MiB"`).FindStringSubmatch(s.stderr.String())
	if found == nil {
		s.t.Fatalf("the server does not tell its worst case: %s", s.stderr.String())
	}
	n, _ := strconv.ParseInt(found[1], 10, 64)
	return n << 20
}

// send is what an honest device does.
func (s *target) send() error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "msl-hsm", "send", s.url, "--psk-file", "good.psk", "--server-key", "server.pem", "--data", "hello")
	c.Dir, c.Env = s.dir, append(os.Environ(), "MSL_HSM_CONFIG=")
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "hello") {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// attack runs all attacks for a time, and acts as an honest device meanwhile.
func (s *target) attack(t *testing.T, many int, long time.Duration, apart bool) {
	keys, err := keys.ReadPSK(filepath.Join(s.dir, "bad.psk"))
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{
		address: strings.TrimSuffix(strings.TrimPrefix(s.url, "http://"), "/"), keys: keys,
		bombs: map[string][]byte{"GZIP": gzipBomb(), "LZW": lzwBomb()},
	}
	attacks := h.attacks()
	names := slices.Sorted(maps.Keys(attacks))
	if !apart {
		s.during(t, "all at once", many, long, func(ctx context.Context, n int) { attacks[names[n%len(names)]](ctx, n) })
	} else {
		for _, name := range names {
			s.during(t, name, many, long/time.Duration(len(names)), attacks[name])
		}
	}
	if err := s.send(); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	peak := s.peak()
	s.signal(syscall.SIGTERM)
	if err := <-s.ended; err != nil {
		t.Errorf("the server ends with %v: %s", err, s.stderr.String())
	}
	if most := s.promised(); peak > most && !raceDetector {
		t.Errorf("the server had %d MiB at its peak, and promised no more than %d MiB", peak>>20, most>>20)
	}
}

// during counts what an honest device gets done while many attack.
func (s *target) during(t *testing.T, name string, many int, long time.Duration, attack func(context.Context, int)) {
	before, served := s.peak(), 0
	ctx, cancel := context.WithTimeout(context.Background(), long)
	var all sync.WaitGroup
	for n := range many {
		all.Go(func() {
			for ; ctx.Err() == nil; n += many {
				attack(ctx, n)
				time.Sleep(time.Millisecond)
			}
		})
	}
	for ; ctx.Err() == nil; served++ {
		if err := s.send(); err != nil {
			t.Errorf("%s: an honest device is not served: %v", name, err)
		}
	}
	cancel()
	all.Wait()
	t.Logf("%-36s %4d honest exchanges, peak %4d MiB after %4d MiB", name, served, s.peak()>>20, before>>20)
}

// TestHostileMemory runs all attacks on a server with little memory.
func TestHostileMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t) // which multiplies memory
	s := newTarget(t, "connections: 256, connections-per-source: 64, header: 1048576, chunk: 4194304, held: 1048576, unproven: 1, proven: 67108864, passwords: 1, sessions: 500")
	s.attack(t, 80, 3*time.Second, false)
}

// TestHostileMemorySoak does so with the default limits.
func TestHostileMemorySoak(t *testing.T) {
	if os.Getenv("MSL_SOAK") == "" {
		t.Skip("takes minutes; MSL_SOAK=1 runs it")
	}
	s := newTarget(t, "")
	s.attack(t, 400, 3*time.Minute, true)
}
