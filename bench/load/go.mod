// What the agents of bench/nodes have in common. It imports nothing but the
// standard library: an agent with tsnet in it must not get our gVisor.
module github.com/seed94491740/tsnode/bench/load

go 1.26.3
