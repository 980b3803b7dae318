package statuspage

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A browser is a tab of Chromium, by its DevTools protocol.
type browser struct {
	*testing.T
	conn *websocket.Conn
	next int
	wary []string // what the page complained of
}

// openBrowser starts Chromium, which this test needs with MSL_TEST_REQUIRE=chromium or
// MSL_SOAK=1: it takes some seconds.
func openBrowser(t *testing.T) *browser {
	required := slices.Contains(strings.Split(os.Getenv("MSL_TEST_REQUIRE"), ","), "chromium")
	if !required && os.Getenv("MSL_SOAK") == "" {
		t.Skip("set MSL_SOAK=1, or MSL_TEST_REQUIRE=chromium")
	}
	path, err := exec.LookPath("chromium")
	if err != nil && required {
		t.Fatalf("MSL_TEST_REQUIRE names chromium: %v", err)
	} else if err != nil {
		t.Skip("chromium is not installed")
	}
	dir := t.TempDir()
	command := exec.CommandContext(t.Context(), path, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--remote-debugging-port=0", "--user-data-dir="+dir, "about:blank")
	command.Env = append(os.Environ(), "HOME="+dir)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { command.Process.Kill(); command.Wait() })
	b := &browser{T: t}
	b.conn = b.dial(filepath.Join(dir, "DevToolsActivePort"))
	t.Cleanup(func() { b.conn.CloseNow() })
	for _, domain := range []string{"Page.enable", "Runtime.enable", "Log.enable"} {
		b.call(domain, nil, nil)
	}
	return b
}

// dial connects to the first tab. The file says at which port, when Chromium is ready.
func (b *browser) dial(file string) *websocket.Conn {
	for range 600 {
		text, err := os.ReadFile(file)
		if port, _, ok := strings.Cut(string(text), "\n"); err == nil && ok {
			if conn := b.tab(port); conn != nil {
				return conn
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	b.Fatal("chromium does not begin")
	return nil
}

func (b *browser) tab(port string) *websocket.Conn {
	answer, err := http.Get("http://127.0.0.1:" + port + "/json/list")
	if err != nil {
		return nil
	}
	defer answer.Body.Close()
	var tabs []struct {
		Type string
		URL  string `json:"webSocketDebuggerUrl"`
	}
	json.NewDecoder(answer.Body).Decode(&tabs)
	for _, tab := range tabs {
		if tab.Type == "page" {
			conn, _, err := websocket.Dial(b.Context(), tab.URL, nil)
			if err != nil {
				b.Fatal(err)
			}
			conn.SetReadLimit(64 << 20)
			return conn
		}
	}
	return nil
}

// call makes a call of the protocol, and notes what the page complained of meanwhile.
func (b *browser) call(method string, parameters, result any) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	b.next++
	request, _ := json.Marshal(map[string]any{"id": b.next, "method": method, "params": parameters})
	if err := b.conn.Write(ctx, websocket.MessageText, request); err != nil {
		b.Fatal(err)
	}
	for {
		_, text, err := b.conn.Read(ctx)
		if err != nil {
			b.Fatalf("%s: %v", method, err)
		}
		var got struct {
			ID     int
			Method string
			Result json.RawMessage
			Error  json.RawMessage
		}
		json.Unmarshal(text, &got)
		if got.Method == "Runtime.exceptionThrown" || got.Method == "Log.entryAdded" || got.Method == "Runtime.consoleAPICalled" {
			b.wary = append(b.wary, string(text))
		}
		if got.ID != b.next {
			continue
		}
		if got.Error != nil {
			b.Fatalf("%s: %s", method, got.Error)
		}
		if result != nil {
			json.Unmarshal(got.Result, result)
		}
		return
	}
}

// run runs a script, and returns its value as text.
func (b *browser) run(script string) string {
	b.Helper()
	var got struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", map[string]any{"expression": script, "awaitPromise": true, "returnByValue": true}, &got)
	if got.ExceptionDetails != nil {
		b.Fatalf("%s: %s", script, got.ExceptionDetails)
	}
	return fmt.Sprint(got.Result.Value)
}

// until waits for a script to be true.
func (b *browser) until(script string) {
	b.Helper()
	for range 300 {
		if b.run(script) == "true" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	b.Fatalf("never: %s; the page says %s; %s", script, b.run("document.body.innerText"), b.wary)
}

// show sets the size of the window, in CSS pixels, and the color scheme.
func (b *browser) show(width, height int, scheme string) {
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
	b.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
}

// picture keeps a picture of the whole page: in MSL_SCREENSHOTS, or where go test keeps
// artifacts.
func (b *browser) picture(name string) {
	dir := os.Getenv("MSL_SCREENSHOTS")
	if dir == "" {
		dir = b.ArtifactDir()
	}
	var got struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &got)
	raw, err := base64.StdEncoding.DecodeString(got.Data)
	if err == nil {
		err = errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, name+".png"), raw, 0o644))
	}
	if err != nil {
		b.Error(err)
	}
}

// contrast lists texts whose contrast with their background is less than WCAG 2.2 wants for
// AA (1.4.3), as the browser computes their colors.
const contrast = `(() => {
	const rgb = c => c.match(/[\d.]+/g).map(Number);
	const light = c => { const [r, g, b] = rgb(c).map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; const v = rgb(c); if (v.length < 4 || v[3] > 0) return c; } return "rgb(255, 255, 255)"; };
	const poor = [];
	for (const e of document.querySelectorAll("body *")) {
		if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility() || e.closest("svg")) continue;
		const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
		if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(e.textContent.trim().slice(0, 40) + " " + ((a + 0.05) / (b + 0.05)).toFixed(2));
	}
	return poor.join("; ");
})()`

// TestBrowser looks at the page as people do: on a desk and on a phone, in the light and in
// the dark.
func TestBrowser(t *testing.T) {
	var tokens Tokens
	mux := http.NewServeMux()
	busy := busyOverview()
	Add(mux, tokens.Show, func(*http.Request) Overview { return busy })
	server := httptest.NewServer(mux)
	defer server.Close()
	b := openBrowser(t)

	b.call("Page.navigate", map[string]any{"url": server.URL + "/"}, nil)
	b.until(`document.readyState === "complete" && !document.getElementById("ask").hidden`)
	b.show(390, 500, "light")
	b.picture("locked")

	b.call("Page.navigate", map[string]any{"url": server.URL + "/?#token=" + tokens.Make()}, nil)
	b.until(`document.readyState === "complete" && !document.getElementById("sections").hidden && document.querySelectorAll("#keys tbody tr").length === 4`)
	if at := b.run("location.href"); strings.Contains(at, "token") {
		t.Errorf("the token stays in the address bar: %s", at)
	}
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int{1280, 768, 390, 320} {
			b.show(width, 900, scheme)
			if over := b.run("document.documentElement.scrollWidth - document.documentElement.clientWidth"); over != "0" {
				t.Errorf("%d pixels: the page is wider by %s: %s", width, over, b.run(`[...document.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + "." + e.id).join()`))
			}
			if poor := b.run(contrast); poor != "" {
				t.Errorf("%s, %d pixels: too little contrast: %s", scheme, width, poor)
			}
			b.picture(fmt.Sprintf("%s-%d", scheme, width))
		}
	}
	b.structure()
	b.keyboard()
	if b.wary != nil {
		t.Errorf("the page complained: %s", b.wary)
	}
	server.Close()
	b.run(`ask()`)
	b.until(`document.getElementById("verdict").textContent.includes("No answer") && !document.getElementById("banner").hidden`)
	b.show(1280, 900, "light")
	b.picture("away")
}

// structure wants what screen readers go by: landmarks, headings in order, names.
func (b *browser) structure() {
	for script, want := range map[string]string{
		`["header", "main", "footer"].every(n => document.querySelectorAll(n).length === 1)`:                                                  "true",
		`document.querySelectorAll("h1").length`:                                                                                              "1",
		`[...document.querySelectorAll("h1, h2, h3")].every((h, i, all) => i === 0 || h.tagName[1] - all[i - 1].tagName[1] <= 1)`:             "true",
		`[...document.querySelectorAll("table")].every(t => t.caption.textContent || !t.checkVisibility())`:                                   "true",
		`[...document.querySelectorAll("thead th")].every(h => h.scope === "col")`:                                                            "true",
		`[...document.querySelectorAll("svg")].every(s => s.getAttribute("role") === "img" && s.getAttribute("aria-label").includes("mean"))`: "true",
		`document.querySelectorAll("svg").length`:                                                                                             "3",
		`document.documentElement.lang`:                                                                                                       "en",
		`[...document.querySelectorAll("[aria-labelledby]")].every(e => document.getElementById(e.getAttribute("aria-labelledby")))`:          "true",
	} {
		if got := b.run(script); got != want {
			b.Errorf("%s is %s, want %s", script, got, want)
		}
	}
	var tree struct {
		Nodes []struct {
			Ignored    bool
			Role, Name struct{ Value any }
		}
	}
	b.call("Accessibility.getFullAXTree", nil, &tree)
	roles := map[string]int{}
	for _, n := range tree.Nodes {
		if !n.Ignored {
			roles[fmt.Sprint(n.Role.Value)]++
		}
	}
	for role, least := range map[string]int{"banner": 1, "main": 1, "contentinfo": 1, "region": 7, "table": 6, "row": 20, "rowheader": 8, "columnheader": 10, "status": 1} {
		if roles[role] < least {
			b.Errorf("%d of role %s, want %d: %v", roles[role], role, least, roles)
		}
	}
}

// keyboard goes through the page with Tab, and opens the table below the charts.
func (b *browser) keyboard() {
	press := func(key string, code int) {
		text := map[string]string{"Enter": "\r"}[key]
		b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text}, nil)
		b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code}, nil)
	}
	b.run(`document.activeElement.blur(); scrollTo(0, 0)`)
	press("Tab", 9)
	if first := b.run(`document.activeElement.className`); first != "skip" {
		b.Errorf("the first stop is %q", first)
	}
	for range 5 {
		press("Tab", 9)
		if b.run(`document.activeElement.tagName`) == "SUMMARY" {
			break
		}
	}
	if outline := b.run(`getComputedStyle(document.activeElement).outlineStyle`); outline != "solid" {
		b.Errorf("the focus is not seen: %s", outline)
	}
	press("Enter", 13)
	b.until(`document.querySelector("details").open && document.querySelectorAll("#past tbody tr").length === 10`)
	b.show(1280, 900, "dark")
	b.picture("opened")
}

// busyOverview is of a server with something of everything.
func busyOverview() Overview {
	now := time.Now()
	o := Overview{
		Now: now, Started: now.Add(-26 * time.Hour), Identity: "msl.example.com", Version: "v1.4.0", Custody: "sealed", Ready: true,
		Checks: []Check{
			{"server", "ok", "it accepts messages"}, {"keystore", "ok", "the issuer key signs; its versions are 2, 1"}, {"state", "ok", "it can be read"},
			{"server.tls.certificates", "warning", "/etc/msl-hsm/server.crt expires 2026-12-06 11:00:00"},
			{"upstream", "failure", "no address could be used: http://127.0.0.1:3000: dial tcp 127.0.0.1:3000: connect: connection refused"},
		},
		Interval: 10, Measured: true,
		Sessions: []Number{{"Sessions remembered", "812"}, {"Messages that used one", "90210 of 91022"}, {"Open connections", "37"}, {"Memory for messages", "412 KiB for proven senders, 0 KiB for others"}, {"PKCS #11 sessions", "3 in use of 8 open"}, {"Session objects in the token", "1634"}, {"Device reopened", "once"}},
		Keys: Keys{Store: "PKCS #11 token pkcs11:token=prod", Read: now.Add(-20 * time.Second), Keys: []Key{
			{Info: keystore.Info{Label: "msl-identity", Version: 1, Algorithm: keystore.RSASign2048, Sensitive: true, NeverExtractable: true, Local: true, Usages: []string{"sign"}}, Purpose: "proves the identity"},
			{Info: keystore.Info{Label: "msl-issuer-mac", Version: 2, Algorithm: keystore.HMACSHA256, Sensitive: true, NeverExtractable: true, Local: true, Usages: []string{"sign", "verify"}}, Purpose: "authenticates tokens", Issues: true},
			{Info: keystore.Info{Label: "msl-issuer-mac", Version: 1, Algorithm: keystore.HMACSHA256, Sensitive: true, NeverExtractable: true, Local: true, Usages: []string{"sign", "verify"}, Notes: []string{"copyable: made by an older version"}}},
			{Info: keystore.Info{Label: "msl-seal-session", Version: 1, Algorithm: keystore.AESWrap128, Sensitive: true, Local: false, Usages: []string{"wrap", "unwrap"}, Weaknesses: []string{"imported: x"}}},
		}},
		State: State{Engine: "etcd, shared by servers", Where: "msl-hsm in etcd at https://etcd-1.example.com:2379, https://etcd-2.example.com:2379, https://etcd-3.example.com:2379",
			Members: []Member{{Endpoint: "https://etcd-1.example.com:2379", Version: "3.6.5", Leader: true, Size: 41 << 20}, {Endpoint: "https://etcd-2.example.com:2379", Version: "3.6.5", Size: 41 << 20}, {Endpoint: "https://etcd-3.example.com:2379", Error: "context deadline exceeded"}},
			Servers: []Server{{Name: "msl-1 (process 4711)"}, {Name: "msl-2 (process 812)", Problem: "key \"msl-issuer-mac\" has no version 2 here yet"}}},
		Enrollments: &Enrollments{Waiting: 27, Oldest: []Device{{ID: strings.Repeat("3fb1a09c", 8), Name: "camera-0099", Waits: "it is not on the list server.enrollment.allow", Since: now.Add(-2 * time.Hour)}, {ID: strings.Repeat("77e0a09c", 8), Name: "camera-0100", Waits: "its keys changed", Since: now.Add(-1 * time.Hour)}}},
	}
	var h History
	for i := range 300 {
		p := Point{At: now.Unix() - int64(300-i)*10, Answered: int64(700 + 250*(i%37)/37 + i), Failed: int64(i % 11)}
		p.Message, p.Call = Times{900, 3.2 + float64(i%17)/10, 20 + float64(i*i%41)}, Times{7000, 0.4 + float64(i%7)/30, 3 + float64(i*i%23)/4}
		if i > 120 && i < 140 {
			p = Point{At: p.At}
		}
		h.points = append(h.points, p)
	}
	h.Message(&msl.Served{Source: "203.0.113.9", Identity: "camera-7", Authenticated: true, Err: errors.New("C_Sign: CKR_DEVICE_REMOVED: the device is lost"), Fault: msl.FaultKeyStore, Response: msl.TransientFailure, Code: msl.ErrInternalException})
	h.Message(&msl.Served{Source: "198.51.100.0/24", Identity: "camera-9", Err: errors.New("message replayed"), Fault: msl.FaultPeer, Response: msl.Replayed, Code: msl.ErrMessageReplayed})
	h.Message(&msl.Served{Source: "203.0.113.12", Identity: "camera-12", Authenticated: true, Err: errors.New("upstream: 9000: dial tcp 127.0.0.1:3000: connect: connection refused"), Fault: msl.FaultApplication, Response: msl.TransientFailure, Code: msl.ErrInternalException})
	h.Fill(&o)
	return o
}
