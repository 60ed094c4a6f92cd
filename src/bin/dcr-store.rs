//! The companion of the filter: durable clients, tenant settings and the Management API.

fn main() {}
