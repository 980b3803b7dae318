package config

import (
	"reflect"
	"strings"
)

// A setting is a field of the configuration, by its whole name.
type setting struct {
	name  string
	value reflect.Value
}

// settings returns all settings, in a fixed order.
func settings(c *Config) []setting { return settingsIn("", reflect.ValueOf(c).Elem()) }

func settingsIn(section string, v reflect.Value) (all []setting) {
	for i := range v.NumField() {
		tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		name, field := joined(section, tag), v.Field(i)
		switch {
		case tag == "":
		case field.Kind() == reflect.Struct && len(fieldNames(field)) > 0:
			all = append(all, settingsIn(name, field)...)
		default:
			all = append(all, setting{name, field})
		}
	}
	return all
}
