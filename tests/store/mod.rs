//! The store: its database through the trait, and the real binary over HTTP and the command line.

mod command_line;
mod database;
mod durability;
mod edge;
mod file;
mod management;
mod stub_authorization_server;
mod token;
mod writer;
