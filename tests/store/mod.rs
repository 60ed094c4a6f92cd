//! The store: its database through the trait, and the real binary over HTTP and the command line.

mod acl_counts;
mod clients;
mod command_line;
mod controls;
mod database;
mod durability;
mod edge;
mod external_issuer;
mod file;
mod fleet_limit;
mod logs;
mod management;
mod migration;
mod network_acls;
mod openapi;
mod permissive;
mod postgres;
mod refusals;
mod resources;
mod server;
mod signing_keys;
mod stub_authorization_server;
mod token;
mod transfer;
mod upkeep;
mod writer;
