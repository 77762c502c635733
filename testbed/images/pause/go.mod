module sidecar.me/testbed/images/pause

go 1.26.0
