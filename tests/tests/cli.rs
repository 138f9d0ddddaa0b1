//! The `peas` program from outside: exit codes, messages, files. Sockets are on the loopback address.

#[path = "cli/clocks.rs"]
mod clocks;
#[path = "cli/harness.rs"]
mod harness;
#[path = "cli/peas.rs"]
mod peas;
#[path = "cli/swarm.rs"]
mod swarm;
#[path = "cli/users.rs"]
mod users;
#[path = "common/web.rs"]
mod web_server;
