package control

import "github.com/qmpblock/qmpblock/qjson"

func (i *Instance) AddDevice(v qjson.Value) error     { return nil }
func (i *Instance) AddDeviceOption(text string) error { return nil }
