package config

import (
	"strings"
	"testing"
)

// TestUserRules asks which users may log in where. An empty user asks for any.
func TestUserRules(t *testing.T) {
	const file = `server:
  user-rules:
  - {entity: kiosk-, user: "@example.com", schemes: [USER_ID_TOKEN]}
  - {entity: kiosk-, schemes: []}
  - {user: "root@example.com", schemes: [EMAIL_PASSWORD]}
`
	c := Default()
	if err := DecodeYAML("f", []byte(file), c); err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct {
		entity, user, scheme string
		want                 bool
	}{
		{"kiosk-1", "ada@example.com", "USER_ID_TOKEN", true},
		{"kiosk-1", "ada@example.com", "EMAIL_PASSWORD", false},
		{"kiosk-1", "ada@example.org", "USER_ID_TOKEN", false},
		{"kiosk-1", "", "USER_ID_TOKEN", true},
		{"kiosk-1", "", "EMAIL_PASSWORD", false},
		{"camera", "root@example.com", "USER_ID_TOKEN", false},
		{"camera", "root@example.com", "EMAIL_PASSWORD", true},
		{"camera", "ada@example.com", "USER_ID_TOKEN", true},
		{"camera", "", "USER_ID_TOKEN", true},
	} {
		if got := c.Server.UserRules.Permit(q.entity, q.user, q.scheme); got != q.want {
			t.Errorf("%+v: %v", q, got)
		}
	}
	if !UserRules(nil).Permit("camera", "ada@example.com", "EMAIL_PASSWORD") {
		t.Error("no rule refuses")
	}
}

// TestUserRulesRefused shows the place of what is wrong.
func TestUserRulesRefused(t *testing.T) {
	for rules, want := range map[string]string{
		`ada`:                                `f:1:23: server.user-rules: must be a list`,
		`[ada]`:                              `f:1:24: server.user-rules: a rule must have fields`,
		`[{entity: a}]`:                      `f:1:24: server.user-rules: a rule needs schemes`,
		`[{entity: a, schemes: }]`:           `schemes of a rule must be a list`,
		`[{entity: [a], schemes: []}]`:       `f:1:33: server.user-rules: entity of a rule must be a text`,
		`[{users: a, schemes: []}]`:          `f:1:25: server.user-rules: unknown field "users"`,
		`[{user: a, schemes: [PASSWORD]}]`:   `unknown name "PASSWORD": want some of EMAIL_PASSWORD`,
		`[{schemes: [USER_ID_TOKEN], x: 1}]`: `unknown field "x"`,
	} {
		err := DecodeYAML("f", []byte("server: {user-rules:  "+rules+"}"), Default())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", rules, err, want)
		}
	}
}
